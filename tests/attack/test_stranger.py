# SPDX-License-Identifier: Apache-2.0
"""The stranger reaches the target's TCP port and has no key and no certificate.

He may hold a connection until the handshake's time is over, and make the target accept and close
others. He keeps nobody out, and nothing of his stays.
"""
import contextlib
import socket
import struct
import time

import harness
from control import Control, framed
from harness import check
from scene import FLOOD_SECONDS, SLOW, attack, stay_until_closed

SILENT = 300  # connections, more than a target keeps of those who have not said who they are
FEW = 128     # descriptors


@attack("clients that send a byte of a TLS handshake a second are closed")
def slow(scene):
    with contextlib.ExitStack() as stack:
        stay_until_closed(scene, {stack.enter_context(scene.connect()): b"\x16\x03\x01\x7f\xff\x01"
                                  for _ in range(SLOW)})


@attack(f"{SILENT} clients that connect and say nothing, some half closed, keep nobody out")
def silent(scene):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(scene.connect()) for _ in range(SILENT)]
        for client in clients[::2]:
            client.socket.shutdown(socket.SHUT_WR)
        scene.serve_another()
        for client in clients:
            client.closed()


@attack("silent clients of one address take no place from the slow ones of another")
def takes_no_place(scene):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Control(scene.address, None, "127.0.2.1")) for _ in range(3)]
        for client in slow:
            client.send_bytes(b"\x16\x03\x01")
        for _ in range(SILENT):
            stack.enter_context(scene.connect())
        check(all(client.is_open() for client in slow), "one of the slow ones was closed",
              scene.target)


@attack(f"with {FEW} descriptors, {SILENT} silent clients keep nobody out",
        preexec_fn=harness.limits(NOFILE=FEW))
def few_descriptors(scene):
    with contextlib.ExitStack() as stack:
        for _ in range(SILENT):
            with contextlib.suppress(OSError):
                stack.enter_context(scene.connect())
        scene.serve_another()
        held = len(harness.fds(scene.target.pid))
        check(held < FEW, f"{held} of {FEW} descriptors are taken", scene.target)


@attack("a flood of connections keeps nobody out")
def connection_flood(scene):
    until = time.monotonic() + FLOOD_SECONDS
    opened = 0
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            with socket.create_connection(scene.address, 5, (scene.source, 0)):
                opened += 1
        if opened % 1000 == 500:
            scene.serve_another()
    check(opened > 0, "no connection came about")


@attack("messages without TLS get a refusal at most")
def no_tls(scene):
    for data in (framed({"type": "hello", "versions": [2, 6], "name": "plain"}),
                 framed({"type": "attach", "token": "0" * 48}), framed({"type": "bye"}),
                 struct.pack("<I", 0xffffffff), struct.pack("<I", 0), framed(b"[" * 16000),
                 framed(b"\0" * 100), b"\x16\x03\x01" + b"\xff" * 1000):
        with scene.connect() as client:
            client.send_bytes(data)
            answer = client.receive_bytes()
            check(b"refused" in answer or b"welcome" not in answer, f"{data[:40]}: {answer}")
            client.closed()


if __name__ == "__main__":
    harness.main()
