# SPDX-License-Identifier: Apache-2.0
"""What works: workloads, flags and reports."""
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import zlib

import harness
from harness import Target, case, check, equal, initiator, report_of

PAGE = 4096
LATENCIES = ("p50", "p90", "p99", "p99_9", "p99_99", "max")


def verified(report, what):
    check(report["verified"] is True, f"{what}: not verified", report["result"])
    check(report["verified_bytes"] > 0, f"{what}: nothing was compared", report["result"])
    equal(report["errors_total"], 0, f"{what}: errors", report["result"])
    equal(report["operations_finished"], report["operations_submitted"], f"{what}: operations",
          report["result"])
    check(report["operations_submitted"] > 0, f"{what}: none submitted", report["result"])


@case("every workload, order and kind of queue is verified")
def every_workload():
    with Target(size="16M") as target:
        for workload, access, pollers in itertools.product(
                ("read", "write", "mix"), ("sequential", "random"), (0, 1)):
            what = f"{workload} {access} pollers={pollers}"
            report = report_of("--remote_segment", target.name, "--workload", workload,
                               "--access", access, "--pollers", pollers, "--integrity_check",
                               "--size", "4K")
            verified(report, what)
            equal(report["path"]["queues"], "poller" if pollers else "inline", what)
            equal(len(report["path"]["pollers"]), pollers, what)
            check(report["verified_bytes"] >= 16 << 20, f"{what}: not the full range")
        target.stop()


@case("every workload without the check says that it was not checked")
def unchecked():
    with Target() as target:
        for workload in ("read", "write", "mix"):
            report = report_of("--remote_segment", target.name, "--workload", workload)
            result = report["result"]
            check(report["verified"] is False, "claims to be verified", result)
            equal(report["verified_bytes"], 0, "verified_bytes", result)
            check("not checked" in result.out, "does not say it", result)
            check((report["bytes_read"] > 0) == (workload != "write"), "bytes_read", result)
            check((report["bytes_written"] > 0) == (workload != "read"), "bytes_written", result)


def pages_of(target, length):
    with harness.memory_of(target, length) as memory:
        return [memory[at:at + PAGE] for at in range(0, length, PAGE)]


def written_all(target, length, *flags):
    """Run until every page of the segment has been written, which one run does but on a machine
    that stands still; give back the pages and the last report."""
    for _ in range(20):
        report = report_of("--remote_segment", target.name, *flags)
        pages = pages_of(target, length)
        if bytes(PAGE) not in pages:
            break
    return pages, report


@case("what write leaves behind cannot be shortened: no zeros, a window of different pages")
def written_content():
    length = 8 << 20
    for threads, depth, size in ((1, 2, 64), (1, 2, 4096), (2, 2, 65536), (4, 1, 65536)):
        what = f"{threads} threads, {size} bytes"
        with Target(size=length) as target:
            pages, report = written_all(target, length, "--workload", "write", "--threads", threads,
                                        "--depth", depth, "--size", size, "--duration", 0.5)
            equal(report["content"], {"filled": True, "pages_looked_at": 0, "pages_of_zeros": 0},
                  what)
            window = size * 16 * depth * threads
            check(bytes(PAGE) not in pages, f"{what}: pages of zeros")
            different = len(set(pages))
            check(different >= window // PAGE, f"{what}: {different} different pages")
            sample = b"".join(pages)[:window // threads]
            check(len(zlib.compress(sample)) >= len(sample), f"{what}: it can be compressed")


@case("read says that it found zeros, and does not write; with --fill it writes first")
def read_content():
    length = 8 << 20
    with Target(size=length) as target:
        for flags in ((), ("--size", 100, "--batch", 3)):
            report = report_of("--remote_segment", target.name, *flags)
            content = report["content"]
            check(not content["filled"] and content["pages_looked_at"] > 0, f"content {content}")
            equal(content["pages_of_zeros"], content["pages_looked_at"], "pages of zeros")
            check("ZEROS" in report["result"].out, "does not say it", report["result"])
        equal(set(pages_of(target, length)), {bytes(PAGE)}, "read has written")
        report = report_of("--remote_segment", target.name, "--fill")
        equal(report["content"]["filled"], True, "filled", report["result"])
        equal(len(set(pages_of(target, length))), length // PAGE, "different pages")
        content = report_of("--remote_segment", target.name)["content"]
        equal((content["filled"], content["pages_of_zeros"]), (False, 0), "found data")


@case("mix fills what it will read; --fill needs the right to write, and goes with read")
def fill_rights():
    with Target(size="8M") as target:
        report = report_of("--remote_segment", target.name, "--workload", "mix", "--duration", 0.01)
        equal(report["content"]["filled"], True, "filled", report["result"])
        check(bytes(PAGE) not in pages_of(target, 8 << 20), "pages of zeros")
        result = initiator("--remote_segment", target.name, "--workload", "write", "--fill")
        equal(result.code, 2, "exit code", result)
        check("--fill goes with --workload read" in result.err, "does not say it", result)
    with Target("--read-only") as target:
        result = initiator("--remote_segment", target.name, "--fill")
        equal(result.code, 2, "exit code", result)
        check("--fill has this run write" in result.err, "does not say why", result)


@case("a checked run tells the rate of moving, and apart from it the time of the check")
def checked_apart():
    with Target() as target:
        for workload, pollers in itertools.product(("read", "write", "mix"), (0, 1)):
            report = report_of("--remote_segment", target.name, "--workload", workload,
                               "--pollers", pollers, "--integrity_check")
            check(0 < report["moving_seconds"] < report["duration_seconds"], "moving_seconds",
                  report["result"])
            check("of moving alone" in report["result"].out, "does not say it", report["result"])
        for flags in ((), ("--integrity_check", "--rate", "2k", "--batch", 1)):
            report = report_of("--remote_segment", target.name, *flags)
            equal(report["moving_seconds"], report["duration_seconds"], f"{flags}: moving_seconds")


@case("odd sizes, tiny ones and those that fill the segment exactly are verified")
def sizes():
    with Target(size="1000003") as target:
        for size, batch, threads in ((1, 1, 1), (1, 16, 2), (3, 5, 3), (63, 64, 2), (4097, 3, 4),
                                     (1000003, 1, 1), (500001, 1, 2), (250000, 2, 2)):
            for workload in ("mix", "write"):
                what = f"{workload} of {size} x {batch} x {threads}"
                report = report_of("--remote_segment", target.name, "--workload", workload,
                                   "--integrity_check", "--size", size, "--batch", batch,
                                   "--threads", threads, "--depth", 4, "--access", "random")
                verified(report, what)
                check(report["verified_bytes"] >= 1000003, f"{what}: not the full range")


@case("a segment of one byte is read, written and verified")
def one_byte():
    with Target(size="1") as target:
        verified(report_of("--remote_segment", target.name, "--workload", "mix", "--size", 1,
                           "--batch", 1, "--threads", 1, "--integrity_check"), "one byte")


@case("both spellings of a flag and both forms of a value mean the same")
def spellings():
    with Target() as target:
        for flags in (["--remote-segment", target.name, "--integrity-check", "--report-unit=MiB",
                       "--report-precision=3", "--use-dram"],
                      [f"--remote_segment={target.name}", "--integrity_check=true",
                       "--report_unit", "MiB", "--report_precision", "3", "--use_dram=true"],
                      ["--remote_segment", target.name, "--integrity_check", "true",
                       "--report_unit=MiB", "--report-precision", "3", "--no-use-vram"]):
            report = report_of(*flags)
            verified(report, " ".join(flags))
            check(re.search(r"throughput +\d+\.\d{3} MiB/s", report["result"].out),
                  "unit and precision", report["result"])


@case("every unit of throughput is the same figure")
def units():
    scales = {"B": 1, "b": 1 / 8}
    powers = {"G": 3, "M": 2, "K": 1}
    words = [p + i + b for p in powers for b in scales for i in ("", "i")]
    with Target() as target:
        for word in words:
            report = report_of("--remote_segment", target.name, "--report_unit", word,
                               "--report_precision", 6, "--duration", 0.05)
            shown = re.search(r"throughput +([\d.]+) (\w+)/s", report["result"].out)
            equal(shown.group(2), word, "unit")
            unit = (1024 if "i" in word else 1000) ** powers[word[0]] * scales[word[-1]]
            ratio = float(shown.group(1)) * unit / report["throughput_bytes_per_second"]
            check(abs(ratio - 1) < 1e-3, f"{word}: off by {ratio}", report["result"])


@case("the JSON report has every key, and they agree with each other")
def json_keys():
    with Target() as target:
        report = report_of("--remote_segment", target.name, "--workload", "mix",
                           "--integrity_check", "--repeat", 3)
        result = report["result"]
        equal(report["schema"], "sluice-report/2", "schema")
        equal(report["transport"], "shm", "transport")
        for key in ("latency_operation_ns", "latency_batch_ns"):
            figures = [report[key][name] for name in LATENCIES]
            equal(figures, sorted(figures), f"{key} is not ascending")
            check(figures[0] > 0, f"{key} is zero", result)
        equal(len(report["runs"]), 3, "runs")
        rates = sorted(run["throughput_bytes_per_second"] for run in report["runs"])
        equal(report["throughput_bytes_per_second"], rates[1], "median")
        check(abs(report["throughput_spread"] - (rates[2] - rates[0]) / rates[1]) < 1e-6, "spread")
        moved = report["bytes_read"] + report["bytes_written"]
        equal(moved, report["operations"] * report["size_bytes"], "bytes and operations")
        rate = moved / report["moving_seconds"]
        check(abs(rate / report["throughput_bytes_per_second"] - 1) < 1e-6, "throughput")
        check(abs(report["operations"] / report["moving_seconds"]
                  / report["operations_per_second"] - 1) < 1e-6, "operations_per_second")
        cpu = [report["cpu_seconds_per_gib" + who] for who in ("_initiator", "_target", "")]
        check(abs(cpu[0] + cpu[1] - cpu[2]) < 1e-9, f"CPU seconds {cpu}", result)
        path = report["path"]
        equal(path["target_pid"], target.pid, "target_pid")
        equal(path["segment"], target.name, "segment")
        equal(path["segment_bytes"], 64 << 20, "segment_bytes")
        check(re.fullmatch("[0-9a-f]{16}", path["target_incarnation"]), "incarnation")
        check(path["target_incarnation"] in target.texts["out"], "another incarnation", target)
        check(path["remote_page_bytes"] in (4096, 2 << 20), "remote_page_bytes")
        rdma = path["rdma"]
        equal((rdma["path"], rdma["queue_pairs"], rdma["doorbells_per_operation"]),
              (None, 0, None), "RDMA on a path without it")
        for key in ("cpu", "kernel", "cpus_online", "hugepages_2m_free", "governor"):
            check(key in report["machine"], f"machine lacks {key}")
        equal(report["command_line"], result.args, "command_line")
        equal(report["errors"], {}, "errors")
        equal(report["mismatch"], None, "mismatch")
        equal(report["interrupted"], False, "interrupted")


@case("--json - writes nothing but JSON to standard output")
def json_to_stdout():
    with Target() as target:
        result = initiator("--remote_segment", target.name, "--json", "-")
        equal(json.loads(result.out)["schema"], "sluice-report/2", "schema", result)


@case("shareable, exported and ordinary local memory is what the report says")
def local_memory():
    own = harness.unique("own")
    with Target() as target:
        for flags, shareable in (([], False), (["--shmfs"], True),
                                 (["--local_segment", own], True)):
            report = report_of("--remote_segment", target.name, *flags, "--workload", "mix",
                               "--integrity_check")
            verified(report, str(flags))
            equal(report["path"]["local_shareable"], shareable, f"{flags}: local_shareable")
        report = report_of("--remote_segment", target.name, "--page", "4K")
        equal(report["path"]["local_page_bytes"], 4096, "local_page_bytes")


@case("an initiator's own segment can be used by another initiator")
def own_segment():
    own = harness.unique("own")
    with Target() as target, harness.running_initiator(target, "--local_segment", own):
        report = report_of("--remote_segment", own, "--threads", 1, "--size", 512)
        equal(report["path"]["segment"], own, "segment")


@case("a segment is reached through a Unix socket path, and the path is gone afterwards")
def socket_path():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "target.sock")
        with Target("--socket", path) as target:
            verified(report_of("--remote_segment", f"{target.name}@{path}", "--workload", "mix",
                               "--integrity_check"), "by path")
            target.stop()
        check(not os.path.exists(path), f"{path} was left behind")


@case("the command that the target prints works as it stands")
def printed_command():
    for flags, size in (([], "64M"), (["--read-only"], "64M"), ([], "100K"), ([], "5")):
        with Target(*flags, size=size) as target:
            command = re.search(r"^  (\S*sluice-initiator .*)$", target.texts["out"], re.M)
            check(command, "no command", target)
            words = command.group(1).split()
            check(os.access(words[0], os.X_OK), f"{words[0]} cannot be run", target)
            result = harness.run([*words, "--duration", "0.1", "--warmup", "0"])
            equal(result.code, 0, "exit code", result)


@case("several segments are served, each of its own size, and reported at the end")
def several_segments():
    other = harness.unique()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "target.json")
        with Target("--segment", f"{other}=1M", "--json", path) as target:
            for name, size in ((target.name, 64 << 20), (other, 1 << 20)):
                report = report_of("--remote_segment", name, "--size", "4K", "--workload", "mix")
                equal(report["path"]["segment_bytes"], size, name)
            result = target.stop()
        with open(path) as file:
            report = json.load(file)
        equal(report["schema"], "sluice-target-report/1", "schema")
        equal([segment["name"] for segment in report["segments"]], [target.name, other], "names")
        for segment in report["segments"]:
            equal(segment["clients_total"], 1, "clients", result)
            equal(segment["clients_lost"], 0, "lost clients", result)
            check(segment["operations"] > 0 and segment["read_bytes"] > 0
                  and segment["written_bytes"] > 0, "nothing was counted", result)


@case("--local_segment serves one segment of --size")
def local_segment_of_target():
    name = harness.unique()
    with harness.Process(harness.TARGET, "--local-segment", name, "--size", "2M") as target:
        target.wait_for("^ready: ")
        report = report_of("--remote_segment", name, "--size", "4K")
        equal(report["path"]["segment_bytes"], 2 << 20, "segment_bytes")
        target.signal(signal.SIGINT)
        equal(target.finish().code, 0, "exit code", target)


@case("the report names the target's process where it is known")
def target_pid():
    with Target("--listen", "127.0.0.1:0") as target:
        address = re.search(r"listen=(\S+)", target.wait_for(r"^ready: .*$").group()).group(1)
        result = initiator("--remote_segment", target.name)
        check(f"pid {target.pid}, incarnation" in result.out, "does not name it", result)
        result = initiator("--remote_segment", f"{target.name}@{address}", "--require", "tcp")
        check("incarnation" in result.out and "pid" not in result.out, "names one", result)


@case("--sweep measures every size that fits, with the batch it used")
def sweep():
    with Target() as target:
        report = report_of("--remote_segment", target.name, "--sweep", "--duration", 0.05,
                           "--workload", "mix", "--integrity_check")
        rows = report["sweep"]
        equal([row["size_bytes"] for row in rows], [64 * 4 ** i for i in range(10)], "sizes")
        verified(report, "sweep")
        for row in rows:
            check(row["size_bytes"] * row["batch"] * row["threads"] <= 64 << 20, "does not fit")
            check(row["batch"] == 16 or row["size_bytes"] >= 1 << 20, "batch lowered needlessly")
        best = max(row["throughput_bytes_per_second"] for row in rows)
        equal(report["throughput_bytes_per_second"], best, "best row")


@case("--rate does as many operations as were due, in whole batches")
def open_loop():
    with Target() as target:
        report = report_of("--remote_segment", target.name, "--rate", "2k", "--batch", 4,
                           "--duration", 1, "--size", "4K")
        operations = report["operations"]
        # Fewer only when the machine stood still for part of the second; never more.
        check(0 < operations <= 2000 + 2 * 2 * 4, f"{operations} operations", report["result"])
        equal(operations % 4, 0, "whole batches")
        equal(report["config"]["rate_operations_per_second"], 2000, "rate")


@case("more threads than cores share one poller and the check still holds")
def oversubscribed():
    with Target() as target:
        verified(report_of("--remote_segment", target.name, "--threads", 16, "--pollers", 1,
                           "--workload", "mix", "--integrity_check"), "16 threads")


@case("--cores pins pollers first, then workers, and the report names them")
def cores():
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise harness.Skip("one CPU")
    with Target() as target:
        report = report_of("--remote_segment", target.name, "--pollers", 1, "--cores",
                           f"{usable[1]},{usable[0]}")
        equal([poller["core"] for poller in report["path"]["pollers"]], [usable[1]], "poller")
        equal(report["path"]["worker_cores"], [usable[0]], "workers")


@case("equal seeds write equal bytes, other seeds other bytes")
def seeds():
    with Target(size="1M") as target:
        def run(seed):
            return report_of("--remote_segment", target.name, "--workload", "write",
                             "--integrity_check", "--size", "4K", "--seed", seed)
        verified(run(1), "seed 1")
        verified(run(2), "seed 2")
        verified(run("0xffffffffffffffff"), "largest seed")


@case("an operation's deadline is taken, and not passed by good operations")
def deadline():
    with Target() as target:
        verified(report_of("--remote_segment", target.name, "--deadline", 100000,
                           "--integrity_check"), "deadline")


@case("--help and --version answer on standard output with exit code 0")
def help_and_version():
    for program in (harness.TARGET, harness.INITIATOR):
        result = harness.run([program, "--help"])
        equal(result.code, 0, "exit code", result)
        check("Usage: " + os.path.basename(program) in result.out, "no usage", result)
        check(max(map(len, result.out.splitlines())) <= 100, "a line is too long", result)
        result = harness.run([program, "--version"])
        equal(result.code, 0, "exit code", result)
        check(re.fullmatch(os.path.basename(program) + r" \d+\.\d+\.\d+\n", result.out),
              "version", result)


@case("without a GPU VRAM is skipped aloud, once")
def vram():
    with Target() as target:
        result = harness.run([harness.INITIATOR, "--remote_segment", target.name, "--duration",
                              "0.1", "--warmup", "0"])
        equal(result.code, 0, "exit code", result)
        equal(result.err.count("VRAM is skipped"), 1, "says it once", result)
        result = initiator("--remote_segment", target.name)
        check("VRAM" not in result.err, "says it though it was turned off", result)


if __name__ == "__main__":
    sys.exit(harness.main())
