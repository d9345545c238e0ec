# SPDX-License-Identifier: Apache-2.0
"""A client that may read a segment in shared memory, against the application that owns it and sleeps
until a client has something for it.

It can wake the owner for nothing. It cannot keep it, a poller or another client waiting, whatever it
does with what it was passed; and nothing that it writes anywhere is taken for a notification.
"""
import contextlib
import ctypes
import fcntl
import mmap
import os
import re
import socket
import struct
import threading
import time

import harness
from control import Control
from harness import Process, case, check, equal, eventually
from scene import attack
from wire import DONE, NOTIFY, READ_RIGHT, WRITE_RIGHT, Data, Local, libc, refusal

OWNER = os.path.join(os.environ["SLUICE_PARTS"], "owner")
RINGS = 200
SO_PASSRIGHTS = 83

# lib/message/client_area.h, notify_ring.h, lanes.h
ARMED, LANES, LANE = 0, 64, 128
LANE_BYTES, SLOTS_AT, SLOTS, LANE_COUNT = 64 + 8 * 256, 64, 256, 128


def ring(fd, first_ns=1, interval_ns=0):
    """0 first_ns: be silent."""
    when = (ctypes.c_long * 4)(0, interval_ns, 0, first_ns)
    libc("timerfd_settime", fd, 0, ctypes.addressof(when), 0)


class Owner(Process):
    """The owner of a segment; address: where it serves TCP."""

    def __init__(self):
        self.name = harness.unique("owned")
        super().__init__(OWNER, self.name)
        self.address = ("127.0.0.1", int(self.wait_for(r"^ready: 127\.0\.0\.1:(\d+)").group(1)))

    def notified(self, tag):
        self.wait_for(rf"^notified {tag}$")

    def tags(self):
        self.read(0)
        return [int(line.split()[1]) for line in self.texts["out"].splitlines()
                if line.startswith("notified")]


class Client(contextlib.ExitStack):
    """A session over shared memory, with the client's area and what wakes the owner."""

    def __init__(self, owner, rights):
        super().__init__()
        local = self.enter_context(Local(owner.name))
        local.hello()
        self.shared = self.enter_context(local.share(owner.name, rights=rights))
        self.area = self.enter_context(mmap.mmap(self.shared.area_fd, 0))
        self.wake_fd = self.shared.fds[2]
        self.number = self.shared.opened["grant"]["number"]
        self.sent = 0

    def ring(self, first_ns=1, interval_ns=0):
        ring(self.wake_fd, first_ns, interval_ns)

    def notify(self, tag, lane=0):
        """As the library does it, but for the barrier: the slot is there long before the look."""
        position = self.sent
        self.sent += 1
        slot = LANE + lane * LANE_BYTES + SLOTS_AT + 8 * (position % SLOTS)
        word = (1 - position // SLOTS % 2) << 63 | self.number << 32 | tag
        struct.pack_into("<Q", self.area, slot, word)
        struct.pack_into("<I", self.area, LANES, LANE_COUNT)
        eventually(lambda: struct.unpack_from("<I", self.area, ARMED)[0] == 1,
                   lambda: "the owner never sleeps")
        struct.pack_into("<I", self.area, ARMED, 0)
        self.ring()


class Beset(contextlib.ExitStack):
    """An owner with a client that means harm, another one, and one on the wire."""

    def __init__(self):
        super().__init__()
        self.owner = self.enter_context(Owner())
        self.good = self.enter_context(Client(self.owner, READ_RIGHT | WRITE_RIGHT))
        self.remote = self.enter_context(Data(lambda: Control(self.owner.address),
                                              self.owner.name))
        self.hostile = self.enter_context(Client(self.owner, READ_RIGHT))
        self.tags = []

    def serve(self):
        """Both others are heard, and nobody else."""
        for _ in range(3):
            self.tags.append(len(self.tags))
            self.good.notify(self.tags[-1])
            self.owner.notified(self.tags[-1])
            self.tags.append(len(self.tags))
            answer = self.remote.carry_out(NOTIFY, 8, 0, b"x" * 8, tag=self.tags[-1])
            equal(answer[:2], (DONE, 0), "NOTIFY over tcp")
            self.owner.notified(self.tags[-1])
        equal(self.owner.tags(), self.tags, "all that was taken for a notification", self.owner)
        equal(self.owner.process.poll(), None, "exit code of the owner", self.owner)


@case("changed flags, and a descriptor that is written, read and silenced, hold up nobody")
def flags():
    with Beset() as beset:
        hostile = beset.hostile
        for fd in hostile.shared.fds:
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        check(refusal(os.write, hostile.wake_fd, struct.pack("<Q", (1 << 64) - 2)) != "done",
              "what wakes the owner can be filled")
        beset.serve()
        hostile.ring(interval_ns=1)
        os.read(hostile.wake_fd, 8)
        beset.serve()
        hostile.ring(0)
        beset.serve()


@case("a client that rings all the time holds up nobody")
def rings():
    with Beset() as beset:
        stop = threading.Event()

        def ring():
            while not stop.is_set():
                beset.hostile.ring()
        thread = threading.Thread(target=ring)
        thread.start()
        try:
            beset.serve()
        finally:
            stop.set()
            thread.join()
        beset.serve()


@case("a client that goes, and keeps what it rang with, wakes nobody any more")
def keeps():
    with Beset() as beset:
        with Client(beset.owner, READ_RIGHT) as other:
            kept = os.dup(other.wake_fd)
        try:
            beset.serve()
            eventually(lambda: wakes(beset.owner, kept) == 0,
                       lambda: "the owner is woken by one that has gone")
        finally:
            os.close(kept)
        beset.serve()


def wakes(owner, fd):
    """How often the owner's main thread runs when that is rung."""
    def switches():
        with open(f"/proc/{owner.pid}/task/{owner.pid}/status") as file:
            return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(),
                                 re.MULTILINE).group(1))
    before = switches()
    for _ in range(RINGS):
        ring(fd)
    time.sleep(0.1)
    return switches() - before


@case("notifications that a reader forges are nobody's")
def forged():
    with Beset() as beset:
        hostile = beset.hostile
        for tag, lane in ((666, 0), (667, 1), (668, LANE_COUNT - 1)):
            hostile.sent = 0
            hostile.notify(tag, lane)
        beset.serve()
        for offset in range(LANE, LANE + LANE_COUNT * LANE_BYTES, 8):
            struct.pack_into("<Q", hostile.area, offset, 1 << 63 | hostile.number << 32 | 669)
        hostile.ring()
        beset.serve()


@case("who says that he is another session of the segment is nobody")
def another():
    with Beset() as beset, Client(beset.owner, READ_RIGHT | WRITE_RIGHT) as hostile:
        own = hostile.number
        for number in (beset.good.number, beset.hostile.number, own ^ 1, own + 2048, 0, 2**31 - 1):
            hostile.number = number
            hostile.notify(670)
        hostile.number = own
        beset.serve()
        beset.tags.append(len(beset.tags))
        hostile.notify(beset.tags[-1])
        beset.owner.notified(beset.tags[-1])
        beset.serve()


@attack("descriptors that he sends, whose closing takes as long as he likes, hold up nobody")
def slow_to_close(scene):
    """A TCP connection with unsent data and a long SO_LINGER: who closes it last waits."""
    with socket.socket(socket.AF_UNIX) as any_one:
        if refusal(any_one.setsockopt, socket.SOL_SOCKET, SO_PASSRIGHTS, 1) != "done":
            raise harness.Skip("this kernel lets nobody refuse descriptors: Linux 6.16 does")
    with socket.create_server(("127.0.0.1", 0)) as server, Local(scene.open_one) as local:
        for _ in range(3):
            sender = socket.create_connection(server.getsockname())
            with server.accept()[0], sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
                sender.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sender.send(bytes(65536))
                how = refusal(socket.send_fds, local.socket, [bytes(4)], [sender.fileno()])
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            equal(how, "EPERM", "sending it")
        scene.serve_another()


if __name__ == "__main__":
    harness.main()
