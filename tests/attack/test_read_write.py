# SPDX-License-Identifier: Apache-2.0
"""A client that may read and write one segment.

What it writes there is its own affair, and that of those who share the segment with it. Of other
segments it reaches nothing, and others are served beside it.
"""
import errno
import random
import signal
import socket
import struct
import time

import harness
from control import framed
from harness import check, equal
from scene import SEGMENT_BYTES, attack, memory_within
from wire import CALL, DONE, NOTIFY, READ, WRITE, Data, binding_of, fence, number, proof_of

RESETS = 200
SLICE = 512 << 10


@attack("garbage on a data connection ends it, and touches nothing")
def garbage(scene):
    chance = random.Random(1)
    for _ in range(20):
        with scene.data() as each:
            for _ in range(16):
                if not each.data.send_bytes(chance.randbytes(65536)):
                    break
            each.data.closed()


def refused(each, error, kind, length, offset, **changes):
    body = b"x" * length if kind != READ else b""
    equal(each.carry_out(kind, length, offset, body, **changes)[:2], (DONE, -error),
          f"answer to {kind} of {length} bytes at {offset} with {changes}")


@attack("requests beyond a segment are refused, up to the last offset that can be said")
def out_of_range(scene):
    with scene.data() as each:
        last = SEGMENT_BYTES - 4096
        each.write(last, b"x" * 4096)
        for offset in (last + 1, SEGMENT_BYTES, 1 << 31, 1 << 32, (1 << 32) - 4096, 1 << 63,
                       (1 << 63) - 1, (1 << 64) - SEGMENT_BYTES, (1 << 64) - 4096,
                       (1 << 64) - 4095, (1 << 64) - 1):
            for kind in (READ, WRITE, NOTIFY):
                refused(each, errno.ERANGE, kind, 4096, offset)
        for offset in (SEGMENT_BYTES + 1, (1 << 64) - 1):
            refused(each, errno.ERANGE, READ, 0, offset)
        each.write(last, b"y" * 4096)


@attack("requests that are too long, or are none, end their connection")
def malformed(scene):
    for kind, length, changes in ((READ, (1 << 19) + 1, {}), (WRITE, 0xffffffff, {}),
                                  (READ, 0xffffffff, {}), (CALL, 4097, {}), (0, 0, {}), (5, 0, {}),
                                  (255, 4096, {}), (READ, 8, {"sequence": 1}),
                                  (READ, 8, {"sequence": 0xffffffff})):
        with scene.data() as each:
            each.data.send_bytes(each.head(kind, length, **changes))
            each.data.closed()


@attack("handles of others, old ones and invented ones open nothing")
def handles(scene):
    def grant(data):
        return {key: data.grant[key] for key in ("handle", "generation")}

    with scene.data() as one, scene.data() as other:
        last = {"handle": 0xffffffff, "generation": 0xffffffff}
        for kind in (READ, WRITE, NOTIFY, CALL):
            refused(one, errno.EACCES, kind, 64, 0, **grant(other))
            for error, changes in (
                    (errno.EKEYREVOKED, {"generation": one.grant["generation"] + 1}),
                    (errno.EKEYREVOKED, {"generation": 0}), (errno.EACCES, last),
                    (errno.EKEYREVOKED, {"handle": one.grant["handle"] + 1000})):
                refused(one, error, kind, 64, 0, **changes)
        old = grant(one)
        one.control.send({"type": "close", "session": 1, "operations": 0, "bytes_read": 0,
                          "bytes_written": 0})
        for session in range(2, 20):
            one.grant = one.control.open(scene.open_one, session)["grant"]
            check(grant(one) != old, "a grant was given out twice")
            one.write(0, b"z" * 64)
            refused(one, errno.EKEYREVOKED, WRITE, 64, 0, **old)


@attack(f"{RESETS} connections that are reset in the middle of a message or of a request")
def resets(scene):
    with memory_within(scene.target.pid, 4 << 20) as look:
        for turn in range(RESETS):
            with scene.data() as each:
                reset_on_close(each.data.socket, each.control.socket)
                each.data.send_bytes(each.head(WRITE, 65536) + b"x" * (turn * 300))
                each.control.send_bytes(framed({"type": "open", "session": 2})[:turn % 40])
            if turn % 50 == 0:
                scene.serve_another()
                look()


def give_up(data, target, length):
    """Begin WRITEs of so many bytes at the segment's start while the target is stopped, and lose the
    connection over them: what its kernel has taken is still there."""
    target.signal(signal.SIGSTOP)
    data.data.socket.settimeout(1)
    for offset in range(0, length, SLICE):
        if not data.data.send_bytes(data.head(WRITE, SLICE, offset) + b"old!" * (SLICE // 4)):
            break
    data.data.__exit__()


@attack("writes that were given up never land over later ones, once their link is fenced")
def fenced_link(scene):
    for length in (4 << 20, 8 << 20, 16 << 20):
        with scene.data() as new, Data(scene.intrude, scene.open_one, control=new.control,
                                       session=2) as lost:
            give_up(lost, scene.target, length)
            scene.target.signal(signal.SIGCONT)
            fence(new.control, link=number(2))
            stays(scene, new)


@attack("nor over those of another connection, once theirs is fenced")
def fenced_connection(scene):
    for length in (4 << 20, 8 << 20, 16 << 20):
        with scene.data() as new, scene.data() as lost:
            give_up(lost, scene.target, length)
            scene.target.signal(signal.SIGCONT)
            welcome = lost.control.welcome
            over = fence(new.control, connection=welcome["connection"],
                         binding=binding_of(lost.control),
                         proof=proof_of(welcome["secret"], "end"))
            equal(over["proof"], proof_of(welcome["secret"], "over"), "proof of the target")
            stays(scene, new)


def stays(scene, data):
    """What is written from now on is there as long as one looks."""
    data.write(0, b"new!" * 1024)
    for _ in range(20):
        check(data.read(0, 4096) == b"new!" * 1024, "an old write has landed over a later one")
        time.sleep(0.02)
    scene.serve_another()
    check(data.read(0, 4096) == b"new!" * 1024, "an old write has landed over a later one")


@attack("nobody fences another's links or connections")
def foreign_fence(scene):
    with scene.data() as one, scene.connect(scene.other) as control:
        control.hello()
        fence(control, link=number(1))  # a link of one's own, that there never was
        for proof in ("0" * 32, proof_of(control.welcome["secret"], "end"), ""):
            control.answer({"type": "fence", "request": 1,
                            "offer": {"connection": one.control.welcome["connection"],
                                      "binding": binding_of(one.control),
                                      "proof": proof}}, "refused")
        one.write(0, b"still here")


def reset_on_close(*sockets):
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


if __name__ == "__main__":
    harness.main()
