# SPDX-License-Identifier: Apache-2.0
"""An identity that the target knows and grants nothing: its key or certificate is good, and no segment
is open to it.

It may hold what its budget allows: connections, messages in each second, memory for what it does not
read. It reads and writes nothing, and keeps nobody else out.
"""
import contextlib
import errno
import os
import signal
import socket
import ssl
import struct
import time

import harness
from control import PSK, framed
from harness import check, equal
from scene import (FLOOD_SECONDS, FORGED, SLOW, attack, check_log, memory_within,
                   stay_until_closed)
from wire import READ_RIGHT, Keyed

CONNECTIONS = 16  # SERVER_RIGHTLESS_CONNECTIONS_MAX


@attack("it opens no segment, with whichever rights", rights="")
def opens_nothing(scene):
    with scene.intrude() as client:
        client.hello()
        for session, (segment, rights) in enumerate(((scene.open_one, 1), (scene.open_one, 3),
                                                     (scene.target.name, 1), ("no-such", 1))):
            client.open(segment, session, rights, "refused")


@attack("it is not told which segments there are, and who has a right on one is", rights="")
def guesses_names(scene):
    def tell(connection, segment):
        answer = connection.open(segment, 1, READ_RIGHT, "refused")
        return answer["error"], answer["text"].replace(segment, "NAME")

    with scene.intrude() as client:
        client.hello()
        equal(tell(client, scene.open_one), tell(client, "no-such"), "the answers to two guesses")
    with Keyed(scene.address, "guest", PSK) as guest:
        guest.hello()
        equal(tell(guest, "no-such")[0], errno.ENOENT, "who has rights on all asks for another")


@attack("clients that send a byte of their hello a second are closed", rights="")
def slow(scene):
    hello = framed({"type": "hello", "versions": [2, 6], "name": "slow"})
    with contextlib.ExitStack() as stack:
        stay_until_closed(scene, {stack.enter_context(scene.intrude()): hello
                                  for _ in range(SLOW)})


WIDE, LONG = 16, 16000      # connections, bytes of a message
CONTROL_BYTES = 4 << 20     # of one identity in a second
HELLO = {"type": "hello", "versions": [2, 6], "name": "no-right"}
ODD_MESSAGES = (
    struct.pack("<I", 0xffffffff), struct.pack("<I", 0xffffffff) + b"x" * 100000,
    struct.pack("<I", 16385) + b"x" * 16385, struct.pack("<I", 0), struct.pack("<I", 0) * 1000,
    framed(b"[" * 16000), framed(b'{"type":' * 1800), framed(b'{"type": "bye", "a": ' + b"[" * 16000),
    framed(b"\xff{"), framed(b"\0" * 16000), framed(b'{"type": "bye"}\0'),
    framed(b'{"type": "usage\0"}'), framed(b'{"type": "usage\\u0000"}'), framed(b'{"type": null}'),
    framed(b"[]"), framed(b'"hello"'), framed(b'{"type": "open", "type": "usage"}'),
    framed({"type": "open"}), framed({"type": "attach"}), framed({"type": "attach", "token": 7}),
    framed({"type": "hello", "versions": [90, 91], "name": "future"}),
    framed({"type": "hello", "versions": [1 << 62, -5]}), framed({"type": "welcome"}),
)


@attack("messages that are too long, or no messages, end their connection", rights="")
def odd_messages(scene):
    with memory_within(scene.target.pid, 4 << 20) as look:
        for first in (b"", framed(HELLO)):
            for data in ODD_MESSAGES:
                with scene.intrude() as client:
                    client.send_bytes(first + data)
                    answer = client.receive()
                    while answer and answer["type"] == "welcome":
                        answer = client.receive()
                    check(answer is None or answer["type"] == "refused", f"{data[:40]}: {answer}")
                    client.closed()
            look()


@attack("names forge no lines of the log", rights="", flags=["-v"])
def names(scene):
    with scene.intrude() as client:
        client.hello(FORGED)
        for session, name in enumerate((FORGED, FORGED * 50, "")):
            client.open(name, session, READ_RIGHT, "refused")
        client.send({"type": FORGED})
        client.closed()
    for message in ({"type": FORGED}, {"type": "bye\0" + FORGED}, {"type": "attach", "token": FORGED},
                    {"type": "hello", "versions": [90, 91], "name": FORGED}):
        with scene.intrude() as client:
            client.send(message)
            client.closed()
    check_log(scene.target)


@attack(f"it gets {CONNECTIONS} connections and no more, and others get theirs", rights="")
def many_connections(scene):
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(scene.intrude()).hello()
        for _ in range(CONNECTIONS):
            client = stack.enter_context(scene.intrude())
            answer = client.answer(HELLO, "refused")
            equal(answer["error"], errno.EDQUOT, f"error of {answer}")
        scene.serve_another()


@attack("what an identity says is taken at a rate, on however many connections", rights="")
def wide_flood(scene):
    usage = framed({"type": "usage", "pad": "x" * LONG})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(scene.intrude()) for _ in range(WIDE)]
        for client in clients:
            client.hello()
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONG)
            client.socket.setblocking(False)
        rest = dict.fromkeys(clients, b"")
        with scene.neighbour() as neighbour:
            begun, answers = time.monotonic(), 0
            while time.monotonic() < begun + FLOOD_SECONDS:
                for client in clients:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        answers += client.socket.recv(65536).count(b'"usage"')
                    with contextlib.suppress(ssl.SSLWantWriteError):
                        rest[client] = rest[client] or usage
                        rest[client] = rest[client][client.socket.send(rest[client]):]
                neighbour.is_served()
            took = time.monotonic() - begun
        most = WIDE + (took + 2) * CONTROL_BYTES / LONG
        check(0 < answers < most, f"{answers} messages were taken in {took:.1f} s")


@attack("a flood of control messages of one client keeps nobody out", rights="")
def message_flood(scene):
    with scene.intrude() as client:
        client.hello()
        client.socket.settimeout(1)
        until = time.monotonic() + FLOOD_SECONDS
        usage = framed({"type": "usage", "session": 1}) * 100
        while time.monotonic() < until and client.send_bytes(usage):
            pass
        scene.serve_another()


@attack("a configuration that is emptied, cut short or taken away gives it no right", rights="")
def empty_configuration(scene):
    with open(scene.config) as file:
        whole = file.read()
    for text in ("", "\n", "[target]\n", whole[:-1], None):
        if text is None:
            os.unlink(scene.config)
        else:
            with open(scene.config, "w") as file:
                file.write(text)
        scene.target.texts["err"] = ""
        scene.target.signal(signal.SIGHUP)
        scene.target.wait_for("not reloaded", "err")
        with scene.intrude() as client:
            client.hello()
            client.open(scene.open_one, 1, 1, "refused")
    with open(scene.config, "w") as file:
        file.write(whole)


if __name__ == "__main__":
    harness.main()
