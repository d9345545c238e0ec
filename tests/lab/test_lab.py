# SPDX-License-Identifier: Apache-2.0
"""The lab: its scenarios, and that it ends in every case and leaves nothing behind.

Cases that boot guests are skipped, with the reason, where QEMU or the kernel cannot be had.
"""
import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# Guests are emulated, and may share two cores with others: only a hang takes that long.
os.environ.setdefault("SLUICE_HANG_SECONDS", "4000")
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "integration")]

import harness  # noqa: E402
from harness import Process, Skip, case, check, equal, eventually  # noqa: E402
from lab import kernel, scenario  # noqa: E402

RUN = os.path.join(HERE, "run")
SKIPPED = 77
TIMEOUT_S = 1800
SMALL = ["memory=256", "nics=0"]
_lacking = []
_hung = []


def fixture(name):
    return os.path.join(HERE, "fixtures", name)


def lab(*args, code=None, **options):
    result = harness.run([RUN, *args], **options)
    if code is not None:
        equal(result.code, code, "exit status", result)
    return result


def build():
    """The build directory whose programs are tested."""
    return os.path.dirname(os.path.dirname(os.path.dirname(harness.TARGET)))


def need_guests():
    """Skip the case where no guest can be booted."""
    if not _lacking:
        result = lab("prepare")
        _lacking.append(result.out.rpartition("skipped: ")[2].strip() if result.code else "")
    if _lacking[0]:
        raise Skip(_lacking[0])


def boot(*args, code=0, **options):
    """Run a scenario whose outcome must be that."""
    need_guests()
    result = lab(*args, "--build", build(), "--timeout", TIMEOUT_S, **options)
    _hung.extend(re.findall(r"^lab +\| a kernel hangs, which says nothing of (\S+):", result.out,
                            re.MULTILINE))
    if result.code == SKIPPED and code != SKIPPED:
        raise Skip(result.out.rpartition("skipped: ")[2].strip() or "no reason was given")
    equal(result.code, code, "exit status", result)
    return result


def says(result, *patterns):
    for pattern in patterns:
        check(re.search(pattern, result.out + result.err, re.MULTILINE),
              f"does not say {pattern!r}", result)


def emulators(pid):
    """Processes of the guests that a run has started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return [int(child) for child in file.read().split()]


def gone(pid):
    """Ended; one that nobody has waited for yet counts as such."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class ScenarioFile:
    """A scenario with that text, for the time of a with statement."""

    def __init__(self, text):
        self.file = harness.File("# A test.\n" + text, name="scenario")

    def __enter__(self):
        return self.file.path

    def __exit__(self, *_):
        self.file.folder.cleanup()


@case("list names every scenario with its goal, and each can be read")
def listed():
    result = lab("list", code=0)
    for name in scenario.names():
        says(result, rf"^{name} +[A-Z].*\.$")
        equal(scenario.read(name, []).name, name, "name")
    check(len(scenario.names()) >= 9, "scenarios lack", result)


@case("a wrong command line or scenario is refused with the cause, exit status 2")
def wrong():
    function = "on_one() { :; }\n"
    for text, args, clue in (
            (None, ["no-such-scenario"], "no scenario no-such-scenario; there are .*boot"),
            (None, ["boot", "memory"], "not of the form NAME=VALUE"),
            (None, ["boot", "PATH=/x"], "not of the form NAME=VALUE"),
            (None, ["boot", "loss=1"], "nothing named loss to set"),
            (None, ["boot", "memory=lots"], "memory=lots: a number from 256"),
            (None, ["boot", "memory=1"], "memory=1: a number from 256"),
            (None, ["boot", "--timeout", "0"], "--timeout: 1 to"),
            (None, ["numa", "memory=1001"], "multiples of nodes=2"),
            (None, ["numa", "hugepages=400 400"], "hugepages=400 400 leave less"),
            (None, ["numa", "hugepages=1 2 3"], "at most 2 numbers"),
            (None, ["rails", "nic_nodes=1"], "nics=2 nodes are wanted"),
            (None, ["rails", "nic_nodes=1 2"], "from 0 to 1"),
            (None, ["rails", "rdma=maybe"], "rdma=maybe: yes or no"),
            (None, ["rails", "mtu=9001"], "mtu=9001: a number from 576"),
            (function, [], "guests=: one to"),
            ("guests=one\n", [], "guest one has no function on_one"),
            ("guests='one one'\n" + function, [], "different names"),
            ("guests=One\n" + function, [], "guest One: a name has small letters"),
            ("guests=one\nneeds=perftest\n" + function, [], "COMMAND:PACKAGE is wanted"),
            ("guests=one\non_one() {\n", [], "the shell cannot read it")):
        with ScenarioFile(text or "") as path:
            says(lab(*(args if text is None else [path]), code=2), clue)


@case("what the host lacks skips a run, exit status 77, with what it is")
def lacks():
    with ScenarioFile("guests=one\nneeds=no-such-command:its-package\non_one() { :; }\n") as path:
        says(lab(path, code=SKIPPED), "skipped: not installed: its-package")
    with tempfile.TemporaryDirectory() as folder:
        says(lab("sluice-tcp", "--build", folder, code=SKIPPED), "has no apps/target/sluice-target")
    with open("/proc/meminfo", encoding="utf-8") as file:
        if int(file.readline().split()[1]) < scenario.MAX_MEMORY_MIB * 1024:
            result = lab("boot", f"memory={scenario.MAX_MEMORY_MIB}", code=SKIPPED)
            says(result, "skipped: the guests need .* MiB are available")


@case("without QEMU, a cache or the kernel's package there is a reason")
def unusable():
    try:
        kernel.check_tools({"no-such-emulator": "its-package"})
        check(False, "a tool that is not there was found")
    except kernel.Lacking as lacking:
        check("apt-get install its-package" in str(lacking), str(lacking))
    try:
        kernel.check_tools(kernel.TOOLS)
    except kernel.Lacking as lacking:
        raise Skip(str(lacking)) from None
    says(lab("prepare", "--cache", "/proc/nowhere", code=SKIPPED), "skipped: the cache .* --cache")
    with harness.File(f'Dir::State "{HERE}/nowhere"; Dir::Cache "/nowhere";') as file, \
            tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "APT_CONFIG": file.path}
        says(lab("prepare", "--cache", folder, code=SKIPPED, env=environment),
             "skipped: apt knows no package linux-image-amd64: run apt-get update")


@case("a kernel that cannot be unpacked is booted as it is")
def packed():
    need_guests()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("version", b"6.1"), ("vmlinuz", bytes(4096))):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        found = kernel.Kernel(folder)
        found.unpack()
        equal(found.image, os.path.join(folder, "vmlinuz"), "image")


@case("the README's scenario runs")
def readme():
    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        text = re.search(r"```sh\n(.*?)```", file.read(), re.DOTALL).group(1)
    with ScenarioFile(text) as path:
        says(boot(path, "needs=ibv_devinfo:ibverbs-utils"), r"^right +\| .*hca_id:\s+rxe0",
             r"^lab +\| passed$")


def add_scenario_cases():
    """Each scenario is a case. The shell has its own."""
    for name in scenario.names():
        if name != "shell":
            case(f"{name}: {scenario.goal_of(scenario.find(name))}")(
                lambda name=name: says(boot(name), r"^lab +\| passed\b"))


@case("what a guest writes stays in it, but for the output folder; parameters arrive")
def output():
    with tempfile.TemporaryDirectory() as folder, open(fixture("leaves_files"),
                                                       encoding="utf-8") as file:
        before = file.read()
        boot(fixture("leaves_files"), "text=a b  $c", "--output", folder, "--keep-logs",
             os.path.join(folder, "logs"))
        with open(os.path.join(folder, "text"), encoding="utf-8") as written:
            equal(written.read(), "a b  $c\n", "text")
        with open(os.path.join(folder, "logs", "one.log"), encoding="utf-8") as log:
            check("kernel  | " in log.read(), "the log lacks the kernel's lines")
        with open(fixture("leaves_files"), encoding="utf-8") as file:
            equal(file.read(), before, "the scenario's file on the host")


@case("a command that fails ends the run, and is pointed out")
def fails():
    with open(fixture("fails"), encoding="utf-8") as file:
        line = next(number for number, text in enumerate(file, 1) if "cat /there" in text)
    result = boot(fixture("fails"), code=1)
    says(result, r"one \| before it", rf"fails, line {line}: status 1 of: cat /there/is",
         r"failed: one ended with status 1")
    check("not reached" not in result.out, "it went on", result)


@case("a guest that skips says why")
def skips():
    says(boot(fixture("skips"), code=SKIPPED), r"^lab \| skipped: the moon is not full$")


@case("a guest that dies ends the run, with the end of its kernel's log")
def dies():
    says(boot(fixture("dies"), code=1), r"^right +\| .*Kernel panic", r"failed: .*right died",
         "right is dead")  # said to the one that waits for it, who ends at once


@case("a barrier that nobody else comes to ends the run")
def lonely():
    says(boot(fixture("lonely"), code=1), "nobody else comes to barrier there|left waits at barrier")


@case("guests that do not end are ended after the time limit")
def limit():
    need_guests()
    says(lab(fixture("hangs"), "--timeout", 8, code=1), "failed: not ended after 8 s: left")


@case("a kernel that hangs is told from a test that fails: it is said, tried again, and counted")
def kernel_hangs():
    with tempfile.TemporaryDirectory() as folder:
        result = boot(fixture("kernel_hangs"), "times=once", "--output", folder)
        says(result, "once more$", r"^lab \| passed \(hung kernels: 1\)$",
             "nothing runs any more on processor 1 of one")
    _hung.remove("kernel_hangs")


@case("a run that is interrupted, terminated or killed leaves no guest")
def signals():
    need_guests()
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        with Process(RUN, fixture("hangs"), "--timeout", TIMEOUT_S) as running:
            running.wait_for("is up after")
            pids = emulators(running.pid)
            equal(len(pids), 2, "guests", running)
            running.signal(number)
            equal(running.finish().code, code, "exit status", running)
        eventually(lambda pids=pids: all(gone(pid) for pid in pids), f"{pids} were left", running)


@case("the shell in a guest takes commands and shows what they print")
def shell():
    need_guests()
    done = subprocess.run([RUN, "shell", *SMALL, "--timeout", str(TIMEOUT_S)], check=False,
                          input=b"echo $lab_name answers $((6 * 7))\n", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=harness.HANG_SECONDS)
    check(b"here answers 42" in done.stdout, done.stdout.decode(errors="replace"))
    equal(done.returncode, 0, "exit status", done.stdout)


def link_or_copy(source, destination):
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy(source, destination)


@case("an ordinary user can boot guests")
def ordinary_user():
    need_guests()
    harness.need_root_to_change_user()
    ready = lab("prepare", code=0).out.strip()
    with tempfile.TemporaryDirectory() as cache:
        shutil.copytree(ready, os.path.join(cache, os.path.basename(ready)), symlinks=True,
                        copy_function=link_or_copy)
        os.chmod(cache, 0o755)
        os.chown(cache, harness.NOBODY, harness.NOBODY)
        says(boot("boot", "--cache", cache, preexec_fn=harness.as_nobody), r"^lab \| passed$")


def say_hung():
    for name in _hung:
        print(f"# note: {name}: the kernel of a guest hung, and it was run once more", flush=True)


if __name__ == "__main__":
    add_scenario_cases()
    atexit.register(say_hung)
    harness.main()
