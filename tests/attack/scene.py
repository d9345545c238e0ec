# SPDX-License-Identifier: Apache-2.0
"""What all attackers find: a target that serves shared memory and TCP with TLS, a well-behaved client
that is busy with it, and a neighbour who wants to be served beside them.

While an attack is at work the well-behaved client writes, reads and compares; none of its operations
may fail. Hostile clients over TCP come from other addresses of the loopback network, as from other
hosts.
"""
import collections
import contextlib
import itertools
import json
import os
import pwd
import re
import signal
import tempfile
import time
import unicodedata

import harness
from control import PSK, Authority, Control, context, psk_file
from harness import Process, Target, case, check, equal, eventually
from wire import Data, Keyed, Local

GROWTH_KIB = 1024
SEGMENT_BYTES = 16 << 20
SLOW = 10            # connections of each kind
FLOOD_SECONDS = 3
# What one event of the target's control thread, and one turn of a poller, may do (lib/base/work.h).
WORK_MAX = (("event", "items", 4096), ("event", "waits", 64), ("turn", "bytes", 6 << 20))
OTHER_USER = 1  # "daemon" on Debian: runs nothing, owns nothing


class Scene:
    """rights: of the intruder on the segment open_one, as the configuration says it; empty: none.
    neighbours: whether other users of this host are let in, with the intruder's rights. flags: more of
    the target's."""

    def __init__(self, folder, rights="read,write", neighbours=False, flags=(), **options):
        self.folder = folder
        self.growth_kib = GROWTH_KIB  # of the second attack
        self.source = "127.0.1.1"
        self.reloads = 0
        self.good = Authority(folder, "good")
        self.bad = Authority(folder, "bad")
        certificate, key = self.good.issue("target", "127.0.0.1")
        self.keys = psk_file(folder, guest=PSK)
        self.intruder = context(self.good, self.good.issue("intruder"))
        self.other = context(self.good, self.good.issue("other"))
        self.open_one = harness.unique("open")  # the segment of the hostile and of others
        self.calm = harness.unique("calm")      # where nobody writes but a neighbour
        self.config = os.path.join(folder, "sluice.conf")
        self.grant(rights)
        self.work = os.path.join(folder, "work.json")
        options["env"] = {**options.get("env", os.environ), "SLUICE_WORK": self.work}
        flags = [*flags, *(("--allow-user", str(OTHER_USER)) if neighbours else ())]
        self.target = Target("--config", self.config, "--segment",
                             f"{self.open_one}={SEGMENT_BYTES}", "--segment", f"{self.calm}=1M",
                             "--listen", "127.0.0.1:0", "--psk", self.keys, "--tls-cert",
                             certificate, "--tls-key", key, "--tls-ca", self.good.path, *flags,
                             size="16M", **options)
        self.address = ("127.0.0.1", int(self.target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1)))
        self.report = os.path.join(folder, "report.json")
        self.flags = ["--require", "tcp", "--psk", self.keys, "--workload", "mix",
                      "--integrity_check", "--size", "4K", "--threads", "1"]

    def grant(self, rights):
        """Write the configuration anew, with these rights of the intruder."""
        with open(self.config, "w") as file:
            file.write("[identity guest]\n* = read,write\n")
            for name in ("intruder", "other", user_identity(OTHER_USER)) if rights else ():
                file.write(f"[identity {name}]\n{self.open_one} = {rights}\n")

    def reload(self):
        """Have the target read its configuration, and its keys, again."""
        self.reloads += 1
        self.target.signal(signal.SIGHUP)
        eventually(lambda: self.target.read(0) and
                   len(re.findall(r"^reloaded ", self.target.texts["out"], re.MULTILINE)) ==
                   self.reloads, "it does not reload", self.target)

    def __enter__(self):
        self.client = Process(harness.INITIATOR, "--remote_segment",
                              self.remote(self.target.name), *self.flags, "--rate", "2k",
                              "--duration", "600", "--warmup", "0", "--no-use_vram", "--progress",
                              "--json", self.report)
        try:
            self.client.wait_for("measuring", "err")
        except BaseException:
            self.__exit__()
            raise
        self.fds = harness.fds(self.target.pid)
        self.threads = self.thread_count()
        self.memory_kib = harness.memory_kib(self.target.pid)
        return self

    def __exit__(self, *_):
        self.client.__exit__()
        self.target.__exit__()

    def remote(self, segment):
        return f"{segment}@127.0.0.1:{self.address[1]}"

    def thread_count(self):
        return len(os.listdir(f"/proc/{self.target.pid}/task"))

    def connect(self, tls=None):
        return Control(self.address, tls, self.source)

    def intrude(self):
        """A connection of the intruder, who has a certificate."""
        return self.connect(self.intruder)

    def data(self):
        """A session of the intruder with a data connection of its own."""
        return Data(self.intrude, self.open_one)

    def warmed_up(self):
        """From now on its memory must not grow."""
        self.check_fds()
        self.memory_kib = harness.memory_kib(self.target.pid)

    def check_fds(self):
        def are_as_before():
            if self.client.process.poll() is not None:
                raise harness.Failure(f"the well-behaved client has ended\n{self.client.finish()}")
            return harness.fds(self.target.pid) == self.fds

        eventually(are_as_before, lambda: f"descriptors that came: {self.difference()[0]}, "
                                          f"that went: {self.difference()[1]}",
                   self.target, self.client)

    def difference(self):
        now, before = collections.Counter(harness.fds(self.target.pid)), \
            collections.Counter(self.fds)
        return dict(now - before), dict(before - now)

    def check(self):
        """Nothing is left, the well-behaved client has not noticed, and another is served."""
        self.check_fds()
        equal(self.thread_count(), self.threads, "threads", self.target)
        grown = harness.memory_kib(self.target.pid) - self.memory_kib
        check(grown < self.growth_kib or harness.SANITIZED, f"memory grew by {grown} KiB",
              self.target)
        self.serve_another()
        self.client_was_served()
        self.target.stop()
        self.check_work()

    def check_work(self):
        """None of its events was a long one, and no turn of a poller."""
        with open(self.work) as file:
            work = json.load(file)
        for place, kind, most in WORK_MAX:
            done, function = work[place][kind]
            check(done <= most, f"{done} {kind} in one {place}, in {function}(): at most {most}")

    def client_was_served(self):
        """Ends the well-behaved client, of whose operations none must have failed."""
        self.client.signal(signal.SIGINT)
        result = self.client.finish()
        with open(self.report) as file:
            report = json.load(file)
        check(report["operations"] > 0, "the well-behaved client did nothing", result)
        equal((report["errors_total"], report["mismatch"]), (0, None), "its errors", result)

    def serve_another(self):
        with self.neighbour() as neighbour:
            neighbour.is_served()

    def neighbour(self):
        return Neighbour(self.address, self.calm)


def user_identity(uid):
    try:
        return f"user:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user:{uid}"


class Neighbour:
    """A client that wants to be served, over TCP with a key and over shared memory. The last 64 KiB
    of the segment are its own."""

    BYTES = 65536

    def __init__(self, address, segment):
        def connect():
            return Keyed(address, "guest", PSK)

        with contextlib.ExitStack() as stack:
            self.remote = stack.enter_context(Data(connect, segment))
            local = stack.enter_context(Local(segment))
            local.hello()
            self.shared = stack.enter_context(local.share(segment))
            self.place = self.shared.length - self.BYTES
            self.stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def is_served(self):
        """A control answer comes, and what is written one way is read the other. Returns the seconds
        that the control answer took, to be shown, not judged."""
        begun = time.monotonic()
        self.remote.control.answer({"type": "usage", "session": 1}, "usage")
        took = time.monotonic() - begun
        for writer, reader in ((self.remote, self.shared), (self.shared, self.remote)):
            sent = os.urandom(self.BYTES)
            writer.write(self.place, sent)
            check(reader.read(self.place, self.BYTES) == sent, "a neighbour reads something else")
        return took


# What a name is made of that wants to be a line of the log of its own, or to talk to a terminal.
FORGED = "x\nFORGED: all is well\r\x1b[2J\x07\x7f\u009b2JFORGED"


def check_log(process):
    """No line was forged, and no character in it is one that a terminal obeys."""
    process.read(0)
    for text in process.texts.values():
        for line in text.split("\n"):
            odd = [c for c in line if unicodedata.category(c) == "Cc"]
            check(not odd and not line.startswith("FORGED"), f"in the log: {line!r}")


@contextlib.contextmanager
def scene_of(**options):
    with tempfile.TemporaryDirectory() as folder, Scene(folder, **options) as scene:
        yield scene


def attack(goal, **scene):
    """A case that besets a target twice: the second time its memory must not grow any more."""
    def add(function):
        @case(goal)
        def beset():
            with scene_of(**scene) as set_up:
                function(set_up)
                set_up.warmed_up()
                set_up.source = "127.0.1.2"
                function(set_up)
                set_up.check()
        return beset
    return add


def stay_until_closed(scene, sent):
    """Send a byte a second over each connection, until all are closed. sent: what, by connection."""
    until = time.monotonic() + harness.HANG_SECONDS
    for step in itertools.count():
        sent = {client: data for client, data in sent.items() if client.is_open()}
        if not sent:
            return
        check(time.monotonic() < until, f"{len(sent)} slow clients stay", scene.target)
        for client, data in sent.items():
            client.send_bytes(data[step:step + 1])
        time.sleep(1)


def memory_bytes(pid):
    """What a process holds in memory: all that is resident, and its hugepages. Of a target, its
    segments included."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = re.findall(r"^(?:Rss|Shared_Hugetlb|Private_Hugetlb):\s+(\d+) kB", file.read(),
                           re.MULTILINE)
    return 1024 * sum(map(int, sizes))


@contextlib.contextmanager
def memory_within(pid, budget):
    """The process may hold no more than it did before, and the budget, while the block runs and at
    its end. Yields a function that looks."""
    idle = memory_bytes(pid)

    def look():
        grown = memory_bytes(pid) - idle
        check(grown <= budget or harness.SANITIZED,
              f"memory grew by {grown} bytes, the budget is {budget}")
    yield look
    look()


def thread_states(pid):
    """The threads of a process by name: what each is doing, as "S" or "R", and where it waits."""
    states = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            base = f"/proc/{pid}/task/{task}"
            with open(f"{base}/stat") as file:
                name, state = re.search(r"\((.*)\) (\S)", file.read()).groups()
            with open(f"{base}/wchan") as file:
                states[f"{name}/{task}"] = (state, file.read())
    return states
