# SPDX-License-Identifier: Apache-2.0
"""Hostile clients over TCP: each gets nothing, leaves nothing behind and keeps nobody out.

While one is at work a well-behaved client writes, reads and compares; none of its operations may
fail. Hostile clients come from other addresses of the loopback network, as from other hosts.
"""
import collections
import contextlib
import errno
import itertools
import json
import os
import random
import re
import select
import signal
import socket
import struct
import tempfile
import threading
import time

import harness
from control import (DONE, PSK, READ, REQUEST, RESPONSE, WRITE, Authority, Control, Refused,
                     context, framed, psk_file, s_client)
from harness import Process, Target, case, check, equal, eventually

GROWTH_KIB = 1024
SILENT = 300        # connections, more than a target keeps of those who have not said who they are
SLOW = 10           # of each kind
FLOOD_SECONDS = 3
SEGMENT_BYTES = 16 << 20


class Scene:
    """A target that serves TCP with TLS, and a well-behaved client that is busy with it."""

    def __init__(self, folder):
        self.folder = folder
        self.source = "127.0.1.1"
        self.good = Authority(folder, "good")
        self.bad = Authority(folder, "bad")
        certificate, key = self.good.issue("target", "127.0.0.1")
        self.keys = psk_file(folder, guest=PSK)
        self.intruder = context(self.good, self.good.issue("intruder"))
        self.other = context(self.good, self.good.issue("other"))
        self.open_one = harness.unique("open")  # the segment of the hostile and of others
        self.target = Target("--segment", f"{self.open_one}={SEGMENT_BYTES}", "--listen",
                             "127.0.0.1:0", "--psk", self.keys, "--tls-cert", certificate,
                             "--tls-key", key, "--tls-ca", self.good.path, size="16M")
        self.address = ("127.0.0.1", int(self.target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1)))
        self.report = os.path.join(folder, "report.json")
        self.flags = ["--require", "tcp", "--psk", self.keys, "--workload", "mix",
                      "--integrity_check", "--size", "4K", "--threads", "1"]

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

    def warmed_up(self):
        """From now on its memory must not grow."""
        self.check_fds()
        self.memory_kib = harness.memory_kib(self.target.pid)

    def check_fds(self):
        eventually(lambda: harness.fds(self.target.pid) == self.fds,
                   lambda: f"descriptors that came: {self.difference()[0]}, "
                           f"that went: {self.difference()[1]}", self.target)

    def difference(self):
        now, before = collections.Counter(harness.fds(self.target.pid)), \
            collections.Counter(self.fds)
        return dict(now - before), dict(before - now)

    def check(self):
        """Nothing is left, the well-behaved client has not noticed, and another is served."""
        self.check_fds()
        equal(self.thread_count(), self.threads, "threads", self.target)
        grown = harness.memory_kib(self.target.pid) - self.memory_kib
        check(grown < GROWTH_KIB or harness.SANITIZED, f"memory grew by {grown} KiB", self.target)
        self.serve_another()
        self.client.signal(signal.SIGINT)
        result = self.client.finish()
        with open(self.report) as file:
            report = json.load(file)
        check(report["operations"] > 0, "the well-behaved client did nothing", result)
        equal((report["errors_total"], report["mismatch"]), (0, None), "its errors", result)
        self.target.stop()

    def serve_another(self):
        result = harness.initiator("--remote_segment", self.remote(self.open_one), *self.flags)
        equal(result.code, 0, "exit code of another client", result)


def attack(goal):
    """A case that besets a target twice: the second time its memory must not grow any more."""
    def add(function):
        @case(goal)
        def beset():
            with tempfile.TemporaryDirectory() as folder, Scene(folder) as scene:
                function(scene)
                scene.warmed_up()
                scene.source = "127.0.1.2"
                function(scene)
                scene.check()
        return beset
    return add


@attack("clients that send a byte a second are closed, before TLS and after it")
def slow(scene):
    hello = framed({"type": "hello", "versions": [2, 2], "name": "slow"})
    with contextlib.ExitStack() as stack:
        sent = {stack.enter_context(scene.connect(tls)): data
                for tls, data in ((None, b"\x16\x03\x01\x7f\xff\x01"), (scene.intruder, hello))
                for _ in range(SLOW)}
        until = time.monotonic() + harness.HANG_SECONDS
        for step in itertools.count():
            sent = {client: data for client, data in sent.items() if client.is_open()}
            if not sent:
                break
            check(time.monotonic() < until, f"{len(sent)} slow clients stay", scene.target)
            for client, data in sent.items():
                client.send_bytes(data[step:step + 1])
            time.sleep(1)


@attack(f"{SILENT} clients that connect and say nothing, some half closed, keep nobody out")
def silent(scene):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(scene.connect()) for _ in range(SILENT)]
        for client in clients[::2]:
            client.socket.shutdown(socket.SHUT_WR)
        scene.serve_another()
        for client in clients:
            client.closed()


@attack("messages that are too long, or no messages, end their connection")
def oversized(scene):
    for data in (struct.pack("<I", 0xffffffff), struct.pack("<I", 16385) + b"x" * 16385,
                 struct.pack("<I", 0), framed(b"[" * 16000), framed(b"\xff{"),
                 framed({"type": "open"}), framed({"type": "attach"}),
                 framed({"type": "hello", "versions": [90, 91], "name": "future"})):
        with scene.connect(scene.intruder) as client:
            client.send_bytes(data)
            answer = client.receive()
            check(answer is None or answer["type"] == "refused", f"{data[:40]}: {answer}")
            client.closed()


@attack("a wrong key, an unknown identity and a foreign certificate are let in nowhere")
def wrong_key(scene):
    for identity, key in (("guest", "43" * 32), ("nobody", PSK)):
        text = s_client(scene.address, identity, key, scene.source)
        check(re.search(r"alert|error|closed", text, re.IGNORECASE), f"{identity}: {text}")
    foreign = context(scene.good, scene.bad.issue("guest"))
    for tls in (foreign, context(scene.good)):
        with contextlib.suppress(Refused), scene.connect(tls) as client:
            client.send({"type": "hello", "versions": [2, 2], "name": "intruder"})
            equal(client.receive(), None, "answer to hello")
    with scene.connect() as client:
        client.send({"type": "hello", "versions": [2, 2], "name": "plain"})
        answer = client.receive()
        check(answer is None or answer["type"] == "refused", f"without TLS: {answer}")


def replay(scene, data):
    """Send recorded bytes again; nothing but the handshake's refusal may come back."""
    with scene.connect() as client:
        client.send_bytes(data)
        client.closed()


class Recorder(threading.Thread):
    """Between one client and the target; keeps what the client sends."""

    def __init__(self, scene):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target = socket.create_connection(scene.address, source_address=(scene.source, 0))
        self.recorded = b""

    def run(self):
        client, _ = self.listener.accept()
        with client, self.target, self.listener:
            while True:
                ready, _, _ = select.select([client, self.target], [], [])
                for each in ready:
                    with contextlib.suppress(OSError):
                        data = each.recv(65536)
                        if data:
                            (self.target if each is client else client).sendall(data)
                            self.recorded += data if each is client else b""
                            continue
                    return


@attack("a recorded session is worth nothing when it is sent again")
def replayed_session(scene):
    recorder = Recorder(scene)
    recorder.start()
    with Control(("127.0.0.1", recorder.port), scene.intruder) as client:
        client.hello()
        client.open(scene.open_one)
    recorder.join()
    check(len(recorder.recorded) > 500, "nothing was recorded")
    replay(scene, recorder.recorded)


@attack("a token of another client, of one that has left, or a guessed one attaches nothing")
def tokens(scene):
    with scene.connect(scene.intruder) as client:
        token = client.hello()["token"]
        with scene.connect(scene.intruder) as data:
            equal(data.attach(token)["type"], "attached", "its own token")
        for tls, wrong in ((scene.other, token), (scene.intruder, "0" * len(token)),
                           (scene.intruder, token[:-1]), (scene.intruder, "")):
            with scene.connect(tls) as data:
                answer = data.attach(wrong)
                check(answer is None or answer["type"] == "refused", f"{wrong!r}: {answer}")
                data.closed()
    with scene.connect(scene.intruder) as data:
        answer = data.attach(token)
        check(answer is None or answer["type"] == "refused", f"after the end: {answer}")


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


@attack("a flood of control messages of one client keeps nobody out")
def message_flood(scene):
    with scene.connect(scene.intruder) as client:
        client.hello()
        client.socket.settimeout(1)
        until = time.monotonic() + FLOOD_SECONDS
        usage = framed({"type": "usage", "session": 1}) * 100
        while time.monotonic() < until and client.send_bytes(usage):
            pass
        scene.serve_another()


class Data:
    """A session of the intruder with a data connection of its own."""

    def __init__(self, scene):
        self.control = scene.connect(scene.intruder)
        self.data = scene.connect(scene.intruder)
        token = self.control.hello()["token"]
        self.grant = self.control.open(scene.open_one)["grant"]
        equal(self.data.attach(token)["type"], "attached", "answer to attach")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.data.__exit__()
        self.control.__exit__()

    def request(self, kind, length, offset=0, sequence=0, **changes):
        grant = {**self.grant, **changes}
        return REQUEST.pack(kind, length, grant["handle"], grant["generation"], offset, 0,
                            sequence)


@attack("garbage on a data connection ends it, and touches nothing")
def garbage(scene):
    chance = random.Random(1)
    for _ in range(20):
        with Data(scene) as each:
            for _ in range(16):
                if not each.data.send_bytes(chance.randbytes(65536)):
                    break
            each.data.closed()


def status_of(data, request):
    """What the target answers to one request; its type and status."""
    check(data.send_bytes(request), "the data connection is closed")
    answer = b""
    while len(answer) < RESPONSE.size:
        part = data.receive_bytes(RESPONSE.size - len(answer))
        check(part, f"closed after {len(answer)} bytes of an answer")
        answer += part
    return RESPONSE.unpack(answer)[:2]


@attack("requests beyond a segment, or for a segment of somebody else, are refused")
def out_of_range(scene):
    with Data(scene) as one, Data(scene) as other:
        last = SEGMENT_BYTES - 4096
        equal(status_of(one.data, one.request(WRITE, 4096, last) + b"x" * 4096), (DONE, 0),
              "a good request")
        foreign = {key: other.grant[key] for key in ("handle", "generation")}
        bad = [(-errno.ERANGE, READ, last + 1, {}), (-errno.ERANGE, READ, (1 << 64) - 4096, {}),
               (-errno.ERANGE, WRITE, SEGMENT_BYTES, {}), (-errno.EACCES, READ, 0, foreign),
               (-errno.EACCES, WRITE, 0, foreign),
               (-errno.EKEYREVOKED, READ, 0, {"generation": one.grant["generation"] + 1}),
               (-errno.EKEYREVOKED, READ, 0, {"handle": one.grant["handle"] + 1000}),
               (-errno.EACCES, READ, 0, {"handle": 0xffffffff})]
        for sequence, (error, kind, offset, changes) in enumerate(bad, 1):
            request = one.request(kind, 4096, offset, sequence, **changes)
            equal(status_of(one.data, request + (b"x" * 4096 if kind == WRITE else b"")),
                  (DONE, error), f"answer to request {sequence}")


@attack("a client that asks for much and reads nothing holds up nobody")
def never_reads(scene):
    with Data(scene) as each:
        each.data.socket.settimeout(1)
        for sequence in range(20000):
            if not each.data.send_bytes(each.request(READ, 65536, 0, sequence)):
                break
        scene.serve_another()


if __name__ == "__main__":
    harness.main()
