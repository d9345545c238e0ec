# SPDX-License-Identifier: Apache-2.0
"""One run: starts the guests, passes their lines on, serves their requests, ends them.

A guest asks on its control line: hello, up, barrier NAME, kill GUEST, cable RAIL in|out, beat
PROCESSOR, skip REASON, done STATUS. Every request but the last three is answered, by "ok" or "fail
REASON".
"""
import os
import re
import selectors
import signal
import socket
import sys
import time

from . import qemu
from .guest import HANGS, RECEIVE_BYTES, Guest

PASSED, FAILED, SKIPPED, HUNG = "passed", "failed", "skipped", "hung"
STATUS_SKIP = 77
GRACE_SECONDS = 15  # for the others when one guest has failed
TICK_SECONDS = 1
LEAVE_SHELL = b"\x1d"  # control and ]
END_OF_INPUT = b"\x04"  # control and D
INPUT_BYTES = 1024


class Session:
    """say(guest or None, text) takes every line that a person should see; log(guest, stream, line)
    takes all of them."""

    def __init__(self, scenario, booted, build, output, say, log):
        self.scenario, self.booted, self.build, self.output = scenario, booted, build, output
        self.say, self.log = say, log
        self.guests = [Guest(name, index) for index, name in enumerate(scenario.guests)]
        self.selector = selectors.DefaultSelector()
        self.failures, self.skipped, self.hung = [], None, []
        self.shell = None
        self.input_ended = False
        self.began = time.monotonic()
        self.deadline = self.began + scenario.timeout_s

    def run(self, shell=False):
        """Give back PASSED, FAILED, SKIPPED or HUNG; .failures, .skipped and .hung say why. HUNG: it
        did not pass, and the kernel of a guest hangs, which is no verdict on what was tested. shell:
        the first guest talks to our terminal in place of running its function."""
        self.shell = self.guests[0] if shell else None
        try:
            self._start()
            while self._unfinished() and time.monotonic() < self.deadline and not self._hangs():
                events = self.selector.select(TICK_SECONDS)
                if self.input_ended and not events and self.shell.alive:
                    # A terminal that is just changing its mode may have lost the first one.
                    self.shell.type(END_OF_INPUT)
                for key, _ in events:
                    guest, name = key.data
                    if guest is None:
                        self._lose(key.fileobj)
                    elif guest.state != "killed":  # by one of the events before this one
                        self._receive(guest, name)
            self._judge()
        finally:
            self.selector.close()
            for guest in self.guests:
                guest.kill()
                guest.unplug()
        if self.hung:
            return HUNG
        return FAILED if self.failures else SKIPPED if self.skipped else PASSED

    def _start(self):
        for guest, rails in zip(self.guests, self._rails()):
            guest.start(lambda sockets, guest=guest: self._command(guest, sockets), rails)
            for name, end in guest.streams():
                self.selector.register(end, selectors.EVENT_READ, (guest, name))

    def _rails(self):
        """For each guest its end of each rail, or None where there is nobody to talk to."""
        if len(self.guests) == 1:
            return [[None] * self.scenario.nics]
        return list(zip(*[socket.socketpair() for _ in range(self.scenario.nics)])) or [[], []]

    def _command(self, guest, sockets):
        keep = [_lab_folder(), self.scenario.path, self.booted.folder, self.build]
        return qemu.command(self.scenario, guest.index, self.booted, _lab_folder(), keep, sockets,
                            self.output)

    def _unfinished(self):
        if self.shell and not self.shell.alive:
            return False
        return any(guest.alive for guest in self.guests)

    def _receive(self, guest, name):
        if name == "input":
            self._type()
            return
        if name == "output" and guest is self.shell:
            self._show_raw()
            return
        lines = guest.receive(name)
        if lines is None:
            self._end_of_stream(guest, name)
            return
        for line in lines:
            self.log(guest.name, name, line)
            self._take(guest, name, line)

    def _lose(self, rail):
        """What is sent to a guest without power, as a switch does."""
        if not rail.recv(RECEIVE_BYTES):
            self.selector.unregister(rail)

    def _take(self, guest, name, line):
        if name == "control":
            self._request(guest, line)
        elif name == "output":
            self.say(guest.name, line)
        elif name == "monitor" and '"error"' in line:
            self._fail(f"QEMU of {guest.name}: {line}")
        elif name in ("kernel", "qemu"):
            guest.kernel_lines.append(line)
            if HANGS.search(line):
                guest.complaint = line
                self.say(guest.name, line)

    def _end_of_stream(self, guest, name):
        """The streams end together; whatever the others still hold is read before."""
        end = guest.process.stdout if name == "qemu" else guest.sockets[name]
        self.selector.unregister(end)
        remaining = [key for key in self.selector.get_map().values()
                     if key.data[0] is guest and key.data[1] != "input"]
        if not remaining and guest.alive:
            guest.state = "dead"
            self._show_kernel(guest)
            self._fail(f"{guest.name} died")
            self._look_for_deadlock()

    def _request(self, guest, line):
        verb, _, argument = line.partition(" ")
        handler = getattr(self, "_on_" + verb, None) if re.fullmatch("[a-z]+", verb) else None
        if handler:
            handler(guest, argument)
        elif line.strip():
            guest.answer(f"fail the lab knows no request {line!r}")

    def _on_hello(self, guest, _):
        scenario = self.scenario
        settings = [("name", guest.name), ("index", guest.index), ("scenario", scenario.path),
                    ("build", self.build or ""), ("kernel", self.booted.folder),
                    ("version", self.booted.version), ("shell", int(guest is self.shell)),
                    ("output", int(bool(self.output)))]
        settings += [("set", f"{name}={value}") for name, value in scenario.overrides.items()]
        if guest is self.shell and sys.stdin.isatty():
            settings.append(("terminal", "{1} {0}".format(*os.get_terminal_size(0))))
        for name, value in settings:
            guest.answer(f"{name} {value}")
        guest.answer("go")

    def _on_up(self, guest, _):
        guest.state = "running"
        guest.expect_beats(self.scenario.cpus)
        self.say(None, f"{guest.name} is up after {time.monotonic() - self.began:.0f} s")
        guest.answer("ok")
        if guest is self.shell:
            self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, (guest, "input"))

    def _on_beat(self, guest, processor):
        guest.beat(processor)

    def _on_barrier(self, guest, name):
        guest.state, guest.barrier = "waiting", name
        others = [other for other in self.guests if other.state != "killed"]
        if all(other.state == "waiting" and other.barrier == name for other in others):
            for other in others:
                other.state = "running"
                other.answer("ok")
        else:
            self._look_for_deadlock()

    def _look_for_deadlock(self):
        """Waiting for somebody who waits elsewhere, or has ended, would last for ever."""
        if any(guest.state in ("starting", "running") for guest in self.guests):
            return
        waiting = [guest for guest in self.guests if guest.state == "waiting"]
        for guest in waiting:
            guest.state = "running"
            guest.answer(f"fail nobody else comes to barrier {guest.barrier}")
        if waiting:
            self._fail("; ".join(_describe(guest) for guest in self.guests))

    def _on_kill(self, guest, name):
        victim = next((other for other in self.guests if other.name == name), None)
        if victim is None or victim is guest or not victim.process:
            guest.answer(f"fail no other guest {name} is there to be killed")
            return
        for key in [key for key in self.selector.get_map().values() if key.data[0] is victim]:
            self.selector.unregister(key.fileobj)
        victim.kill()
        victim.state = "killed"
        for rail in victim.rails:
            self.selector.register(rail, selectors.EVENT_READ, (None, "rail"))
        self.say(None, f"{victim.name} was killed, as {guest.name} asked")
        guest.answer("ok")

    def _on_cable(self, guest, argument):
        match = re.fullmatch(r"(\d) (in|out)", argument)
        if not match or int(match.group(1)) >= self.scenario.nics:
            guest.answer(f"fail cable {argument}: a rail and in or out are wanted")
            return
        guest.cable(int(match.group(1)), match.group(2) == "in")
        guest.answer("ok")

    def _on_skip(self, _, reason):
        self.skipped = reason or "no reason was given"

    def _on_done(self, guest, status):
        guest.state, guest.status = "done", status
        if status not in ("0", str(STATUS_SKIP)):
            self._fail(f"{guest.name} ended with status {status}")
        elif status == str(STATUS_SKIP):
            self.skipped = self.skipped or f"{guest.name} said so without a reason"
            self.deadline = time.monotonic()
        self._look_for_deadlock()

    def _fail(self, reason):
        self.failures.append(reason)
        self.say(None, reason)
        self.deadline = min(self.deadline, time.monotonic() + GRACE_SECONDS)

    def _hangs(self):
        self.hung = [reason for reason in (guest.hang() for guest in self.guests) if reason]
        return bool(self.hung)

    def _judge(self):
        late = [guest for guest in self.guests if guest.alive and guest is not self.shell]
        if self.shell or self.skipped or not (late or self.failures):
            return
        self._hangs()
        self.hung += [f"the kernel of {guest.name} says: {guest.complaint}"
                      for guest in self.guests if guest.complaint]
        if self.failures and not self.hung:
            return
        for guest in late:
            self._show_kernel(guest)
        if not self.failures and not self.hung:
            self._fail(f"not ended after {self.scenario.timeout_s} s: "
                       + "; ".join(_describe(guest) for guest in self.guests))

    def _show_kernel(self, guest):
        """The end of what its kernel has said, which says why a guest ended or hangs."""
        self.say(None, f"last lines of {guest.name}'s kernel and QEMU:")
        for line in guest.kernel_lines:
            self.say(guest.name, line)

    def _type(self):
        data = os.read(sys.stdin.fileno(), INPUT_BYTES)
        if LEAVE_SHELL in data:
            self.shell.state = "done"
        elif data:
            self.shell.type(data)
        else:
            self.selector.unregister(sys.stdin.fileno())
            self.shell.type(END_OF_INPUT)
            self.input_ended = True

    def _show_raw(self):
        data = self.shell.sockets["output"].recv(INPUT_BYTES)
        if data:
            os.write(sys.stdout.fileno(), data)
        else:
            self._end_of_stream(self.shell, "output")


def _lab_folder():
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _describe(guest):
    if guest.alive and guest.stopped():
        return f"{guest.name}'s QEMU was stopped (SIGSTOP)"
    if guest.barrier and guest.state == "waiting":
        return f"{guest.name} waits at barrier {guest.barrier}"
    return {"starting": f"{guest.name} is still booting", "running": f"{guest.name} is running",
            "done": f"{guest.name} has ended"}.get(guest.state, f"{guest.name} is {guest.state}")


def raise_on_signals():
    """SIGTERM and SIGHUP end a run as Ctrl-C does."""
    def stop(number, _):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
