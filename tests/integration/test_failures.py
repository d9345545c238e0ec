# SPDX-License-Identifier: Apache-2.0
"""What goes wrong at run time: exit code 1, a message that names cause and remedy, nothing lost."""
import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import time

import harness
from harness import Process, Skip, Target, case, check, equal, initiator, run, running_initiator


def failed(result, *parts):
    equal(result.code, 1, "exit code", result)
    for part in parts:
        check(re.search(part, result.err), f"the message lacks {part!r}", result)


@case("a target that is not there is named, with the command that would start it")
def no_target():
    name = harness.unique("nowhere")
    failed(initiator("--remote_segment", name), "no target listens", name, "sluice-target")
    failed(initiator("--remote_segment", f"{name}@/tmp/{name}.sock"),
           f"--segment {name}=SIZE --socket /tmp/{name}.sock$")


@case("a segment that the target does not serve is named")
def no_segment():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "target.sock")
        with Target("--socket", path):
            failed(initiator("--remote_segment", f"other@{path}"), "other")


@case("a transport asked for by name is used or refused, never replaced")
def transports():
    with Target() as target:
        for transport in ("verbs", "tcp"):
            failed(initiator("--remote_segment", target.name, "--transport", transport), transport)
        failed(initiator("--remote_segment", target.name, "--transport", "fake"), target.name)
        for transport in ("shm", "auto"):
            report = harness.report_of("--remote_segment", target.name, "--transport", transport)
            equal(report["transport"], "shm", transport)


@case("a second target of the same name or socket is refused and the first goes on")
def second_target():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "target.sock")
        with Target("--socket", path) as target:
            failed(run([harness.TARGET, "--segment", f"{target.name}=1M"]), target.name, "stop")
            failed(run([harness.TARGET, "--segment", f"{harness.unique()}=1M", "--socket", path]),
                   re.escape(path))
            for name in (target.name, f"{target.name}@{path}"):
                equal(initiator("--remote_segment", name).code, 0, name)


@case("a file that is no socket is left as it is, and named")
def no_socket():
    with harness.File("precious") as file:
        failed(run([harness.TARGET, "--segment", f"{harness.unique()}=1M", "--socket", file.path]),
               re.escape(file.path), "is no socket", "another path")
        with open(file.path, encoding="ascii") as left:
            equal(left.read(), "precious", "the file")


@case("a name is free again once its target was stopped, or killed")
def name_is_free_again():
    name = harness.unique()
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        with Target(name=name) as target:
            target.signal(number)
            target.finish()
    with Target(name=name):
        equal(initiator("--remote_segment", name).code, 0, "exit code")


@case("a target's socket path is free again once it was killed")
def path_is_free_again():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "target.sock")
        with Target("--socket", path) as target:
            target.signal(signal.SIGKILL)
            target.finish()
        with Target("--socket", path) as target:
            equal(initiator("--remote_segment", f"{target.name}@{path}").code, 0, "exit code")


@case("a read-only segment is read, and refuses to be written")
def read_only():
    with Target("--read-only") as target:
        equal(initiator("--remote_segment", target.name).code, 0, "read")
        for workload in ("write", "mix"):
            failed(initiator("--remote_segment", target.name, "--workload", workload), "read-only")


@case("SIGINT and SIGTERM in the middle of a run report what was done, and exit 1")
def interrupted():
    for number in (signal.SIGINT, signal.SIGTERM):
        for flags in ([], ["--pollers", "1"], ["--workload", "mix", "--integrity_check"]):
            with tempfile.TemporaryDirectory() as folder, Target() as target:
                path = os.path.join(folder, "report.json")
                with running_initiator(target, "--json", path, *flags) as process:
                    process.signal(number)
                    result = process.finish()
                equal(result.code, 1, "exit code", result)
                check("INTERRUPTED" in result.out, "does not say it", result)
                check("interrupted" in result.err, "says nothing on stderr", result)
                with open(path) as file:
                    report = json.load(file)
                equal(report["interrupted"], True, "interrupted")
                equal(report["verified"], False, "verified")
                equal(report["errors_total"], 0, "errors", result)
                check(report["operations"] > 0, "nothing reported", result)
                check(report["throughput_bytes_per_second"] > 0, "no throughput", result)


@case("SIGINT during the warm-up ends the run, too")
def interrupted_early():
    with Target() as target:
        with Process(harness.INITIATOR, "--remote_segment", target.name, "--warmup", "600",
                     "--no-use_vram", "--progress") as process:
            process.wait_for("warming up", "err")
            process.signal(signal.SIGINT)
            result = process.finish()
        equal(result.code, 1, "exit code", result)
        check("INTERRUPTED" in result.out, "does not say it", result)


@case("an interrupted sweep reports no size that was not measured")
def interrupted_sweep():
    with Target() as target:
        with Process(harness.INITIATOR, "--remote_segment", target.name, "--sweep", "--warmup",
                     "600", "--no-use_vram", "--progress") as process:
            process.wait_for("warming up", "err")
            process.signal(signal.SIGINT)
            result = process.finish()
        equal(result.code, 1, "exit code", result)
        check("throughput" in result.out, "no heading", result)
        check(not re.search(r"^ *64 B ", result.out, re.MULTILINE), "a row", result)


@case("a killed target ends the run within its deadlines, with the reason")
def target_killed():
    for flags in ([], ["--pollers", "1"], ["--workload", "mix", "--integrity_check"]):
        with tempfile.TemporaryDirectory() as folder, Target() as target:
            path = os.path.join(folder, "report.json")
            with running_initiator(target, "--json", path, *flags) as process:
                target.signal(signal.SIGKILL)
                result = process.finish()
            equal(result.code, 1, "exit code", result)
            for text in (result.out, result.err):
                check("the peer died" in text, "no reason", result)
            with open(path) as file:
                report = json.load(file)
            check(report["errors_total"] > 0, "no errors", result)
            equal(report["operations_finished"], report["operations_submitted"], "finished", result)
            equal(list(report["errors"]), ["ECONNRESET"], "errors by kind", result)
            equal(report["verified"], False, "verified", result)


@case("a target that does not answer ends the run after --connect-timeout, with the reason")
def silent_target():
    with Target("--listen", "127.0.0.1:0") as target:
        address = re.search(r"listen=(\S+)", target.wait_for(r"^ready: .*$").group(0)).group(1)
        target.freeze()
        for name in (target.name, f"{target.name}@{address}"):
            failed(initiator("--remote_segment", name, "--connect-timeout", "0.2"),
                   "did not answer in time")
        target.signal(signal.SIGCONT)


@case("a target that is stopped tells its clients, reports, and exits 0")
def target_stopped():
    with Target() as target, running_initiator(target) as process:
        target.signal(signal.SIGTERM)
        left = target.finish()
        equal(left.code, 0, "exit code of the target", left)
        check(re.search(rf"segment {target.name}: \d+ operations", left.out), "no report", left)
        result = process.finish()
        equal(result.code, 1, "exit code", result)
        check("closing" in result.out, "no reason", result)


@case("a killed initiator is noticed, and its target goes on serving")
def initiator_killed():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "target.json")
        with Target("--json", path) as target:
            for _ in range(3):
                with running_initiator(target) as process:
                    process.signal(signal.SIGKILL)
                    process.finish()
            report = harness.report_of("--remote_segment", target.name, "--workload", "mix",
                                       "--integrity_check")
            equal(report["verified"], True, "verified")
            target.stop()
        with open(path) as file:
            segment = json.load(file)["segments"][0]
        equal((segment["clients_total"], segment["clients_lost"]), (4, 3), "clients")


@case("data that somebody else overwrites is found: WRONG DATA and exit code 1")
def wrong_data():
    one_block = ["--threads", "1", "--batch", "1", "--depth", "1", "--size", "64K"]
    with Target(size="64K") as target:
        with running_initiator(target, "--workload", "write", *one_block):
            for workload in ("mix", "read"):
                with tempfile.TemporaryDirectory() as folder:
                    path = os.path.join(folder, "report.json")
                    result = initiator("--remote_segment", target.name, "--workload", workload,
                                       "--integrity_check", *one_block, "--duration", "60",
                                       "--json", path)
                    with open(path) as file:
                        report = json.load(file)
                equal(result.code, 1, "exit code", result)
                found = re.search(r"WRONG DATA at offset (\d+) of the segment: expected "
                                  r"0x([0-9a-f]{2}), got 0x([0-9a-f]{2})", result.out)
                check(found, "no mismatch", result)
                wrong = report["mismatch"]
                equal(wrong, {"offset_bytes": int(found.group(1)),
                              "expected": int(found.group(2), 16),
                              "got": int(found.group(3), 16)}, "mismatch")
                check(wrong["expected"] != wrong["got"], "equal bytes", result)
                equal(report["verified"], False, "verified")


@case("another user is refused, unless the target allows it")
def foreign_user():
    harness.need_root_to_change_user()
    with Target() as target:
        failed(initiator("--remote_segment", target.name, preexec_fn=harness.as_nobody),
               "not allowed", "--allow-user")
    for user in ("nobody", str(harness.NOBODY)):
        with Target("--allow-user", user) as target:
            result = initiator("--remote_segment", target.name, "--workload", "read",
                               "--require", "shm", preexec_fn=harness.as_nobody)
            equal(result.code, 0, "exit code", result)


WRITES = ("--workload", "write", "--size", "4K")


@case("another user writes in shared memory only if he is named, else over TCP, and hears why")
def foreign_writer():
    harness.need_root_to_change_user()
    with Target("--allow-user", "nobody") as target:
        failed(initiator("--remote_segment", target.name, *WRITES, preexec_fn=harness.as_nobody),
               "may not write segment", "--shm-writer", "--listen")
    with Target("--allow-user", "nobody", "--listen", "127.0.0.1:0") as target:
        failed(initiator("--remote_segment", target.name, *WRITES, "--require", "shm",
                         preexec_fn=harness.as_nobody), "shm was required", "--shm-writer")
        result = initiator("--remote_segment", target.name, *WRITES, "--json", "-",
                           preexec_fn=harness.as_nobody)
        equal(json.loads(result.out)["transport"], "tcp", "transport", result)
        result = run([harness.INITIATOR, "explain", "--remote_segment", target.name, *WRITES],
                     preexec_fn=harness.as_nobody)
        check("--shm-writer" in result.out, "the reason", result)
    with Target("--allow-user", "nobody", "--shm-writer", "nobody") as target:
        result = initiator("--remote_segment", target.name, *WRITES, "--require", "shm",
                           preexec_fn=harness.as_nobody)
        equal(result.code, 0, "exit code", result)


@case("with --shm-writer none our own user writes over TCP, and reads in shared memory")
def no_writer():
    with Target("--shm-writer", "none", "--listen", "127.0.0.1:0") as target:
        failed(initiator("--remote_segment", target.name, *WRITES, "--require", "shm"),
               "shm was required", "sealed")
        equal(initiator("--remote_segment", target.name, *WRITES).code, 0, "exit code")
        result = initiator("--remote_segment", target.name, "--workload", "read", "--require",
                           "shm")
        equal(result.code, 0, "exit code", result)


@case("an ordinary user's target and initiator need no privilege")
def ordinary_user():
    harness.need_root_to_change_user()
    with Target(preexec_fn=harness.as_nobody) as target:
        result = initiator("--remote_segment", target.name, "--workload", "mix",
                           "--integrity_check", preexec_fn=harness.as_nobody)
        equal(result.code, 0, "exit code", result)


@case("a target of an unknown user is not trusted, unless the initiator allows it")
def foreign_target():
    harness.need_root_to_change_user()

    def as_daemon():
        os.setgroups([])
        os.setgid(1)
        os.setuid(1)

    with Target("--allow-user", "1", preexec_fn=harness.as_nobody) as target:
        failed(initiator("--remote_segment", target.name, preexec_fn=as_daemon), "not allowed",
               "--allow-user")
        result = initiator("--remote_segment", target.name, "--allow-user", harness.NOBODY,
                           "--workload", "read", preexec_fn=as_daemon)
        equal(result.code, 0, "exit code", result)


@case("a socket that lets only its owner in: who has to be allowed is said")
def foreign_socket():
    harness.need_root_to_change_user()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "target.sock")
        with Target("--socket", path):
            failed(initiator("--remote_segment", f"a@{path}", preexec_fn=harness.as_nobody),
                   "Permission denied", f"--allow-user {harness.NOBODY}")


@case("a report that could not be written is noticed at the start, and no file is touched")
def no_report():
    with tempfile.TemporaryDirectory() as folder, harness.File("old") as file, Target() as target:
        for path, cause in ((f"{folder}/none/report", "No such file"), (folder, "directory")):
            for program, flag, value in ((harness.TARGET, "--segment", f"{harness.unique()}=1M"),
                                         (harness.INITIATOR, "--remote_segment", "nowhere")):
                result = run([program, flag, value, "--json", path])
                failed(result, f"--json: {path} cannot be written", cause)
                equal(result.out, "", "stdout", result)
        for path in (file.path, f"{folder}/new"):
            failed(initiator("--remote_segment", "nowhere", "--json", path), "no target listens")
        equal(os.listdir(folder), [], "files left")
        with open(file.path, encoding="ascii") as left:
            equal(left.read(), "old", "the file")
        result = initiator("--remote_segment", target.name, "--json", "/dev/null")
        equal(result.code, 0, "a device", result)


@case("too few hugepages: the numbers and the remedy")
def no_hugepages():
    failed(run([harness.TARGET, "--segment", f"{harness.unique()}=8T", "--page", "2M"]),
           r"4194304 pages of 2 MiB", "free", "vm.nr_hugepages")


@case("more memory than there is: the numbers, and nothing is taken")
def out_of_memory():
    failed(run([harness.TARGET, "--segment", f"{harness.unique()}=32T", "--page", "4K"]),
           r"33554432 MiB wanted", "available")


@case("without enough hugepages, automatic pages are ordinary and the report says so")
def fallback_to_ordinary_pages():
    free = int(open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read())
    available = int(re.search(r"MemAvailable:\s+(\d+) kB", open("/proc/meminfo").read()).group(1))
    size = (free + 1) * 2 << 20
    if size > available << 9:
        raise Skip(f"{free} hugepages are free: one more is over half of the available memory")
    with Target(size=str(size)) as target:
        report = harness.report_of("--remote_segment", target.name)
        equal(report["path"]["remote_page_bytes"], 4096, "page")


@case("a memlock limit that is too low: the numbers and the remedy")
def memlock():
    if harness.SANITIZED:
        raise Skip("the sanitizer lets every mlock pass")
    if os.geteuid() == 0:
        harness.need_root_to_change_user()

    def confined():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        if os.geteuid() == 0:
            harness.as_nobody()

    failed(run([harness.TARGET, "--segment", f"{harness.unique()}=16M", "--page", "4K",
                "--mlock"], preexec_fn=confined), "64 KiB", "16384 KiB", "ulimit -l")


@case("a node that this machine does not have is refused")
def no_node():
    result = run([harness.TARGET, "--segment", f"{harness.unique()}=1M@777"])
    check(result.code in (1, 2) and "777" in result.err, "not refused", result)


@case("too few file descriptors: a message, no crash")
def no_descriptors():
    with Target() as target:
        for limit in range(15, 40, 3):
            result = initiator("--remote_segment", target.name, "--pollers", 1,
                               preexec_fn=harness.limits(NOFILE=limit))
            check(result.code in (0, 1), f"with {limit} descriptors", result)
            check(result.code == 0 or result.err, "no message", result)
        equal(initiator("--remote_segment", target.name).code, 0, "the target goes on")


@case("a closed standard output costs neither the run nor its exit code")
def closed_stdout():
    with Target() as target:
        common = [harness.INITIATOR, *harness.QUICK, "--workload", "mix", "--integrity_check",
                  "--remote_segment"]
        for name, code in ((target.name, 0), (harness.unique("nowhere"), 1)):
            for close in ("1>&-", "1>&- 0<&-", "1>/dev/full"):
                result = run(["sh", "-c", f'exec "$@" {close}', "sh", *common, name])
                equal(result.code, code, f"exit code with {close}", result)
                check(code or "could not be written" in result.err, f"{close}: silent", result)
        result = run(["sh", "-c", 'exec "$@" 1>&- 2>&- 0<&-', "sh", *common, target.name])
        equal(result.code, 0, "exit code with everything closed", result)


@case("a reader of standard output that goes away costs neither the run nor its exit code")
def broken_pipe():
    with Target() as target:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([harness.INITIATOR, *harness.QUICK, "--remote_segment", target.name],
                              stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE,
                              timeout=harness.HANG_SECONDS)
        os.close(writer)
        equal(done.returncode, 0, f"exit code ({done.stderr})")
        check(b"could not be written" in done.stderr, f"silent: {done.stderr}")


@case("a target with standard output closed serves, and exits 0")
def target_without_stdout():
    name = harness.unique()
    for close in ("1>&-", "1>&- 2>&- 0<&-", "1>/dev/full"):
        process = subprocess.Popen(["sh", "-c", f'exec "$@" {close}', "sh", harness.TARGET,
                                    "--segment", f"{name}=4M"],
                                   stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            harness.eventually(lambda: initiator("--remote_segment", name, "--size", "4K",
                                                 "--duration", "0.05").code == 0,
                               f"never served with {close}")
            process.send_signal(signal.SIGTERM)
            equal(process.wait(harness.HANG_SECONDS), 0, f"exit code with {close}")
        finally:
            process.kill()
            process.wait()


@case("a report that fails while it is written is a failure that names the file")
def unwritable_json():
    with Target() as target:
        result = initiator("--remote_segment", target.name, "--json", "/dev/full")
        failed(result, "/dev/full", "No space left")
        check("throughput" in result.out, "the text report is lost", result)


@case("an idle target and an idle initiator use hardly any CPU time")
def idle():
    def cpu_seconds(pid):
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    with Target("--pollers", "1") as target:
        with running_initiator(target, "--rate", "1", "--batch", "1", "--threads", "1",
                               "--pollers", "1") as process:
            before = {pid: cpu_seconds(pid) for pid in (target.pid, process.pid)}
            began = time.monotonic()
            time.sleep(2)
            elapsed = time.monotonic() - began
            for pid, start in before.items():
                used = (cpu_seconds(pid) - start) / elapsed
                check(used < 0.02, f"{100 * used:.1f} % of a core", target, process)


if __name__ == "__main__":
    harness.main()
