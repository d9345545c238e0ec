# SPDX-License-Identifier: Apache-2.0
"""Runs sluice-target and sluice-initiator as a user does, and reports in TAP.

A test file defines functions with @case("goal") and ends with main(). It is started as
    test_x.py PATH_OF_SLUICE_TARGET PATH_OF_SLUICE_INITIATOR
Every process started here is ended here. Waiting is for events, with a limit that only a hang
reaches; nothing depends on how fast the machine is.
"""
import ctypes
import itertools
import json
import mmap
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HANG_SECONDS = int(os.environ.get("SLUICE_HANG_SECONDS", "600"))
SANITIZED = os.environ.get("SLUICE_SANITIZED") == "1"
NOBODY = 65534

# What the machine or the user has configured is not what is tested.
for variable in [name for name in os.environ
                 if name.startswith(("SLUICE_TARGET_", "SLUICE_INITIATOR_"))]:
    del os.environ[variable]
os.environ["SLUICE_CONFIG"] = ""

TARGET = INITIATOR = None
_cases = []
_names = itertools.count()


class Skip(Exception):
    """Raised by a case that needs what this machine lacks; the text says what."""


class Failure(Exception):
    pass


def case(goal):
    def add(function):
        _cases.append((goal, function))
        return function
    return add


def check(condition, text, *results):
    if not condition:
        raise Failure(text + "".join("\n" + str(result) for result in results))


def equal(got, expected, what, *results):
    check(got == expected, f"{what}: expected {expected!r}, got {got!r}", *results)


def main(folders_of_our_own=False):
    global TARGET, INITIATOR
    TARGET, INITIATOR = map(os.path.abspath, sys.argv[1:3])
    if folders_of_our_own:
        have_folders_of_our_own()
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    chosen = [(goal, function) for goal, function in _cases if only in goal]
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    for number, (goal, function) in enumerate(chosen, 1):
        try:
            function()
            print(f"ok {number} - {goal}", flush=True)
        except Skip as reason:
            print(f"ok {number} - {goal} # SKIP {reason}", flush=True)
        except Exception as error:
            failed += 1
            text = str(error) if isinstance(error, Failure) else traceback.format_exc()
            print(f"not ok {number} - {goal}")
            for line in text.splitlines():
                print("# " + line)
            sys.stdout.flush()
    sys.exit(1 if failed else 0)


def unique(prefix="it"):
    """A segment name that no other test uses at the same time."""
    return f"{prefix}-{os.getpid()}-{next(_names)}"


class Result:
    """What a finished process left: .code, .out, .err."""

    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    def __str__(self):
        return (f"command: {' '.join(map(str, self.args))}\nexit code: {self.code}\n"
                f"stdout:\n{self.out}\nstderr:\n{self.err}")


def limits(**wanted):
    """A preexec_fn that sets soft and hard resource limits, e.g. limits(MEMLOCK=65536)."""
    def apply():
        for name, value in wanted.items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    return apply


def as_nobody():
    """A preexec_fn that becomes another, powerless user."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def need_root_to_change_user():
    if os.geteuid() != 0:
        raise Skip("only root can start processes of another user")
    for path in (TARGET, INITIATOR):
        while path not in ("/", ""):
            mode = os.stat(path).st_mode
            if not mode & 0o001:
                raise Skip(f"other users cannot reach {path}")
            path = os.path.dirname(path)


def run(args, **options):
    args = [str(arg) for arg in args]
    try:
        done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=HANG_SECONDS, **options)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"did not end: {' '.join(args)}\n{error.stdout}\n{error.stderr}") from None
    return Result(args, done.returncode, done.stdout.decode(errors="replace"),
                  done.stderr.decode(errors="replace"))


QUICK = ["--duration", "0.2", "--warmup", "0", "--threads", "2", "--no-use_vram"]


def initiator(*args, quick=True, prefix=(), **options):
    """Run an initiator to its end; later flags win over those of QUICK. prefix: what runs it."""
    return run([*prefix, INITIATOR, *(QUICK if quick else []), *args], **options)


def report_of(*args, code=0, **options):
    """Run an initiator and return the report that it writes as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "report.json")
        result = initiator(*args, "--json", path, **options)
        equal(result.code, code, "exit code", result)
        with open(path) as file:
            report = json.load(file)
    report["result"] = result
    return report


class Process:
    """A process that runs beside the test. stdout and stderr are collected as they come."""

    def __init__(self, *args, **options):
        self.args = [str(arg) for arg in args]
        self.texts = {"out": "", "err": ""}
        self.process = subprocess.Popen(self.args, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        **{"stdin": subprocess.DEVNULL, **options})
        self.pid = self.process.pid
        self.open = {self.process.stdout.fileno(): "out", self.process.stderr.fileno(): "err"}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def __str__(self):
        return str(Result(self.args, self.process.poll(), self.texts["out"], self.texts["err"]))

    def read(self, seconds):
        """Take what has been printed; returns whether anything can still come."""
        ready, _, _ = select.select(list(self.open), [], [], seconds) if self.open else ([],) * 3
        for fd in ready:
            data = os.read(fd, 65536)
            if data:
                self.texts[self.open[fd]] += data.decode(errors="replace")
            else:
                del self.open[fd]
        return bool(self.open)

    def wait_for(self, pattern, stream="out"):
        """Wait until a line matches; returns the match."""
        until = time.monotonic() + HANG_SECONDS
        while True:
            match = re.search(pattern, self.texts[stream], re.MULTILINE)
            if match:
                return match
            check(self.read(1) and time.monotonic() < until, f"never printed {pattern!r}", self)

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self):
        """Wait for its end; returns the Result."""
        until = time.monotonic() + HANG_SECONDS
        while self.read(1):
            check(time.monotonic() < until, "did not end", self)
        self.process.wait(HANG_SECONDS)
        return Result(self.args, self.process.returncode, self.texts["out"], self.texts["err"])


class Target(Process):
    """A sluice-target that is ready; .name is its only segment. prefix: what runs it."""

    def __init__(self, *args, size="64M", name=None, prefix=(), **options):
        self.name = name or unique()
        super().__init__(*prefix, TARGET, "--segment", f"{self.name}={size}", *args, **options)
        try:
            self.wait_for(r"^ready: .*$")
        except BaseException:
            self.__exit__()
            raise

    def freeze(self):
        """Stop it, until SIGCONT: each of its threads."""
        def states():
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/stat") as file:
                    yield file.read().rpartition(")")[2].split()[0]
        self.signal(signal.SIGSTOP)
        eventually(lambda: set(states()) == {"T"}, "it does not stop", self)

    def stop(self):
        """Ask it to finish; returns the Result, which must be a good one."""
        self.signal(signal.SIGTERM)
        result = self.finish()
        equal(result.code, 0, "exit code of the target", result)
        return result


def running_initiator(target, *args, **options):
    """An initiator in the middle of a long measurement."""
    process = Process(INITIATOR, "--remote_segment", target.name, "--duration", "600", "--warmup",
                      "0", "--no-use_vram", "--progress", *args, **options)
    try:
        process.wait_for(r"measuring", "err")
    except BaseException:
        process.__exit__()
        raise
    return process


class File:
    """A configuration file for the time of a with statement; .path is where."""

    def __init__(self, text, name="sluice.conf"):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, name)
        self.write(text)

    def write(self, text):
        with open(self.path, "wb" if isinstance(text, bytes) else "w") as file:
            file.write(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()


def eventually(condition, text, *results):
    """Wait for a condition; text is, or returns, what is wrong while it does not hold."""
    until = time.monotonic() + HANG_SECONDS
    while not condition():
        check(time.monotonic() < until, text() if callable(text) else text, *results)
        time.sleep(0.02)


def fds(pid):
    """What each open descriptor of a process is; sockets and memfds lose their numbers."""
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{fd}")))
        except FileNotFoundError:
            pass
    return sorted(links)


def memory_kib(pid):
    """Private memory of a process: what the segments hold is not in it."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1))


def memory_of(target, length):
    """The memory of a target's segment of that length, read-only, as the kernel has it."""
    folder = f"/proc/{target.pid}/fd"
    for fd in os.listdir(folder):
        path = os.path.join(folder, fd)
        if os.readlink(path).startswith("/memfd:") and os.stat(path).st_size == length:
            with open(path, "rb") as file:
                return mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ)
    raise Failure(f"no memfd of {length} bytes\n{target}")


def abstract_sockets():
    """Names of the abstract Unix sockets of segments that this test has named."""
    with open("/proc/net/unix") as file:
        return {line.split()[-1] for line in file
                if "@sluice/" in line and f"-{os.getpid()}-" in line}


FOLDERS = ("/dev/shm", "/run", "/tmp")  # where shared memory and sockets would be left behind
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 1 << 14, 1 << 18
_private = set()


def have_folders_of_our_own():
    """From now on what others do in the first two of FOLDERS is not seen, nor ours by them; where
    that is not allowed nothing changes."""
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWNS) != 0 or \
            libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return
    for folder in FOLDERS[:2]:
        if not TARGET.startswith(folder + "/") and \
                libc.mount(b"none", folder.encode(), b"tmpfs", 0, None) == 0:
            _private.add(folder)


def files():
    """Names in FOLDERS; of those that others use too, names with one of our segments in them."""
    return {entry.path for folder in FOLDERS for entry in os.scandir(folder)
            if folder in _private or f"-{os.getpid()}-" in entry.name}
