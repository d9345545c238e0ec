# SPDX-License-Identifier: Apache-2.0
"""One guest: its QEMU process and the lines that come out of it."""
import collections
import ctypes
import json
import os
import re
import signal
import socket
import subprocess

PR_SET_PDEATHSIG = 1
RECEIVE_BYTES = 65536
SEND_SECONDS = 5  # a guest that takes nothing for so long loses what was sent
LINE_MAX = 65536
KEPT_KERNEL_LINES = 60  # the report of a panic is about 40
STREAMS = ("kernel", "output", "control", "monitor")
TICKS = os.sysconf("SC_CLK_TCK")
# What a kernel says of itself when something in it waits, or runs, for ever.
HANGS = re.compile(r"blocked for more than \d+ seconds|(soft|hard) lockup|hard LOCKUP|"
                   r"rcu\w*: .*(self-)?detected stall|rcu\w* kthread starved")
# A processor on which nothing else has run for so much of its own time is the kernel's for ever; an
# emulator that gets no time from the host does not count it.
HUNG_SECONDS = 20


class Lines:
    """Cuts a stream into lines; one that is longer than LINE_MAX is cut as well."""

    def __init__(self):
        self.rest = b""

    def add(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > LINE_MAX:
            lines, self.rest = lines + [self.rest], b""
        return [line.decode(errors="replace").rstrip("\r") for line in lines]


class Guest:
    """state: starting, running, waiting (at .barrier), done (with .status), killed or dead."""

    def __init__(self, name, index):
        self.name, self.index = name, index
        self.state, self.status, self.barrier, self.reason = "starting", None, None, ""
        self.sockets, self.lines = {}, {name: Lines() for name in (*STREAMS, "qemu")}
        self.kernel_lines = collections.deque(maxlen=KEPT_KERNEL_LINES)
        self.process, self.rails = None, []
        self.beats, self.complaint = {}, None

    @property
    def alive(self):
        return self.state in ("starting", "running", "waiting")

    def start(self, make_command, rails):
        """make_command: from descriptors to a command line. rails: sockets to the other guest."""
        theirs, self.rails = {}, [rail for rail in rails if rail]
        try:
            for name in STREAMS:
                self.sockets[name], theirs[name] = socket.socketpair()
                self.sockets[name].settimeout(SEND_SECONDS)
            descriptors = {name: end.fileno() for name, end in theirs.items()}
            descriptors["rails"] = [rail.fileno() if rail else None for rail in rails]
            kept = [fd for fd in (*[end.fileno() for end in theirs.values()],
                                  *descriptors["rails"]) if fd is not None]
            self.process = subprocess.Popen(
                make_command(descriptors), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, pass_fds=kept, start_new_session=True,
                preexec_fn=_die_with(os.getpid()))
        finally:
            for end in theirs.values():
                end.close()
        self.send_monitor("qmp_capabilities")

    def streams(self):
        """(name, descriptor) of all that can be read."""
        yield from ((name, end) for name, end in self.sockets.items())
        yield "qemu", self.process.stdout

    def receive(self, name):
        """What came in: lines, or None at the end of the stream."""
        try:
            if name == "qemu":
                data = os.read(self.process.stdout.fileno(), RECEIVE_BYTES)
            else:
                data = self.sockets[name].recv(RECEIVE_BYTES)
        except ConnectionResetError:
            data = b""
        if data:
            return self.lines[name].add(data)
        return None

    def answer(self, line):
        self._send("control", line.encode() + b"\n")

    def cable(self, rail, plugged):
        self.send_monitor("set_link", name=f"nic{rail}", up=plugged)

    def send_monitor(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self._send("monitor", json.dumps(request).encode() + b"\n")

    def type(self, data):
        self._send("output", data)

    def stopped(self):
        """Whether somebody has suspended it, by SIGSTOP."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
                return file.read().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def expect_beats(self, processors):
        """From now on each of them gives a sign of life every few seconds; see guest/start."""
        self.beats = dict.fromkeys(map(str, range(processors)), self._seconds())

    def beat(self, processor):
        self.beats[processor] = self._seconds()

    def hang(self):
        """What shows that its kernel hangs, or None. beats: when each processor was last heard of."""
        now = self._seconds()
        for processor, then in self.beats.items() if self.process else ():
            if now - then > HUNG_SECONDS * len(self.beats):
                return (f"nothing runs any more on processor {processor} of {self.name}, whose QEMU "
                        f"has used {now - then:.0f} s of processor time meanwhile")
        return None

    def _seconds(self):
        """Processor time that its QEMU has used."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
        except (OSError, AttributeError):  # not started, or killed
            return 0
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _send(self, name, data):
        try:
            self.sockets[name].sendall(data)
        except OSError:
            pass  # it died: the main loop learns that by itself

    def kill(self):
        """End it now, also when it is stopped; nothing in it is worth an orderly end."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None
        for end in self.sockets.values():
            end.close()
        self.sockets = {}

    def unplug(self):
        """Once it is killed; until then what was sent to it can be read, or the card that sent it
        would wait for ever."""
        for rail in self.rails:
            rail.close()
        self.rails = []


def _die_with(parent):
    """A preexec_fn: the kernel ends the guest when the lab ends, however that ends."""
    prctl = ctypes.CDLL(None).prctl

    def apply():
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
    return apply
