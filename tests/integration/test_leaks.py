# SPDX-License-Identifier: Apache-2.0
"""Opened and closed a thousand times, killed, talked to badly: nothing stays behind."""
import json
import os
import random
import signal
import socket
import struct

import harness
from harness import Target, case, check, equal, eventually, initiator, running_initiator

OPENS = 1000
GROWTH_KIB = 1024


class Client:
    """Speaks the control protocol of lib/control/message.h by hand."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(harness.HANG_SECONDS)
        self.socket.connect(f"\0sluice/{name}")
        self.fds = []
        self.data = b""  # received, and not yet a message

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in self.fds:
            os.close(fd)
        self.socket.close()

    def send(self, message):
        body = json.dumps(message).encode()
        self.socket.sendall(struct.pack("<I", len(body)) + body)

    def receive(self):
        """The next message, or None when the target has closed."""
        while True:
            if len(self.data) >= 4:
                end = 4 + struct.unpack("<I", self.data[:4])[0]
                if len(self.data) >= end:
                    body, self.data = self.data[4:end], self.data[end:]
                    return json.loads(body)
            try:
                part, fds, _, _ = socket.recv_fds(self.socket, 65536, 4)
            except ConnectionResetError:
                return None
            self.fds += fds
            if not part:
                return None
            self.data += part

    def open(self, name):
        self.send({"type": "hello", "versions": [6, 6], "name": "test"})
        equal(self.receive()["type"], "welcome", "answer to hello")
        self.send({"type": "open", "session": 1, "segment": name, "rights": 3,
                   "transports": ["shm"]})
        answer = self.receive()
        equal(answer["type"], "opened", f"answer to open ({answer})")
        check(self.fds, "no descriptors came")


class Footprint:
    """What a target without clients holds, to be compared with itself later."""

    def __init__(self, target):
        self.target = target
        self.fds = harness.fds(target.pid)
        self.files = harness.files()
        self.sockets = harness.abstract_sockets()
        self.memory_kib = None

    def warmed_up(self):
        """From now on its memory must not grow either."""
        self.check_fds()
        self.memory_kib = harness.memory_kib(self.target.pid)

    def check_fds(self):
        eventually(lambda: harness.fds(self.target.pid) == self.fds,
                   lambda: f"descriptors before: {self.fds}, after: {harness.fds(self.target.pid)}",
                   self.target)

    def check(self):
        self.check_fds()
        grown = harness.memory_kib(self.target.pid) - self.memory_kib
        check(grown < GROWTH_KIB or harness.SANITIZED, f"memory grew by {grown} KiB", self.target)
        left = harness.files() - self.files
        check(not left, f"files are left behind: {left}")
        eventually(lambda: harness.abstract_sockets() <= self.sockets,
                   lambda: f"sockets are left behind: {harness.abstract_sockets()}")


@case(f"{OPENS} clients come and go, some without a goodbye, and leave nothing behind")
def opens_and_closes():
    with Target(size="4M") as target:
        footprint = Footprint(target)
        for number in range(OPENS):
            with Client(target.name) as client:
                client.open(target.name)
                if number % 2:
                    client.send({"type": "bye"})
            if number == OPENS // 10:
                footprint.warmed_up()
        footprint.check()
        result = target.stop()
        check(f"{OPENS} clients, {OPENS // 2} of them vanished" in result.out,
              "clients were miscounted", result)


@case("a hundred clients at once come and go and leave nothing behind")
def many_at_once():
    with Target(size="4M") as target:
        footprint = Footprint(target)
        for round_number in range(5):
            clients = [Client(target.name) for _ in range(100)]
            for client in clients:
                client.open(target.name)
            for client in clients:
                client.__exit__()
            if round_number == 0:
                footprint.warmed_up()
        footprint.check()


@case("initiators come and go, killed ones included, and leave nothing behind")
def initiators():
    with Target(size="4M") as target:
        footprint = Footprint(target)
        short = ["--remote_segment", target.name, "--size", "4K", "--duration", "0.02"]
        for number in range(30):
            if number % 3 == 1:
                own = harness.unique("own")
                with running_initiator(target, "--size", "4K", "--local_segment",
                                       own) as process:
                    process.signal(signal.SIGKILL)
                    process.finish()
            else:
                equal(initiator(*short).code, 0, "exit code")
            if number == 5:
                footprint.warmed_up()
        footprint.check()


@case("killed targets leave neither sockets nor files nor memory")
def killed_targets():
    files, sockets = harness.files(), harness.abstract_sockets()
    for _ in range(5):
        with Target(size="4M") as target, running_initiator(target, "--size", "4K") as process:
            target.signal(signal.SIGKILL)
            target.finish()
            equal(process.finish().code, 1, "exit code of the initiator", process)
    check(not harness.files() - files, "files are left behind")
    eventually(lambda: harness.abstract_sockets() <= sockets,
               lambda: f"sockets are left behind: {harness.abstract_sockets() - sockets}")


def hostile_messages(name):
    hello = json.dumps({"type": "hello", "versions": [6, 6], "name": "x"}).encode()
    good = struct.pack("<I", len(hello)) + hello
    yield "nothing", b""
    yield "half a length", b"\x10\x00"
    yield "length 0", struct.pack("<I", 0)
    yield "length 4 GiB", struct.pack("<I", 0xffffffff) + b"{}"
    yield "length over the limit", struct.pack("<I", 16385) + b"x" * 16385
    yield "half a body", struct.pack("<I", 100) + b'{"type":'
    for text in (b"{}", b"[]", b"null", b"7", b'"hello"', b'{"type":7}', b'{"type":"open"}',
                 b'{"type":"moved"}', b'{"type":"hello"}', b'{"type":"hello","versions":[]}',
                 b'{"type":"hello","versions":"all"}', b'{"type":"hello","versions":[90,99]}',
                 b"\xff\xfe\x00{", b"[" * 16000, b'{"type":"' + b"a" * 16000 + b'"}'):
        yield repr(text[:40]), struct.pack("<I", len(text)) + text
    for fields in ({}, {"session": -1}, {"session": "1"}, {"segment": 7}, {"segment": "../etc"}, {"rights": 255}, {"rights": -1},
                   {"rights": 0}, {"transports": []}, {"transports": "shm"}, {"transports": [7]},
                   {"transports": ["nonsense"] * 900}, {"segment": "a" * 8000}):
        message = {"type": "open", "session": 1, "segment": name, "rights": 3,
                   "transports": ["tcp"], **fields}
        body = json.dumps(message).encode()
        yield f"open with {str(fields)[:60]}", good + struct.pack("<I", len(body)) + body
    chance = random.Random(1)
    for number in range(200):
        yield f"noise {number}", chance.randbytes(chance.randrange(1, 400))


@case("truncated and hostile control messages are refused, and the target goes on")
def hostile():
    with Target(size="4M") as target:
        footprint = Footprint(target)
        for what, data in hostile_messages(target.name):
            with Client(target.name) as client:
                try:
                    client.socket.sendall(data)
                    client.socket.shutdown(socket.SHUT_WR)
                except (BrokenPipeError, ConnectionResetError, OSError):
                    pass
                while True:
                    answer = client.receive()
                    if not answer:
                        break
                    check(answer["type"] in ("welcome", "refused"), f"{what}: {answer}", target)
                check(not client.fds, f"{what}: descriptors were handed out", target)
            check(target.process.poll() is None, f"{what}: the target died", target)
            if footprint.memory_kib is None:
                footprint.warmed_up()
        footprint.check()
        result = initiator("--remote_segment", target.name, "--size", "4K", "--workload", "mix",
                           "--integrity_check")
        equal(result.code, 0, "exit code", result)


@case("clients that connect and say nothing do not keep others out")
def silent_clients():
    with Target(size="4M") as target:
        silent = [Client(target.name) for _ in range(50)]
        result = initiator("--remote_segment", target.name, "--size", "4K")
        for client in silent:
            client.__exit__()
        equal(result.code, 0, "exit code", result)


if __name__ == "__main__":
    harness.main(folders_of_our_own=True)
