# SPDX-License-Identifier: Apache-2.0
"""The refused one tries to prove who he is, and fails: a wrong key, an identity that nobody knows, a
certificate of another authority.

He may make the target carry out handshakes that fail, and say so in its log at a rate of its own. He
learns nothing of segments or clients.
"""
import contextlib
import os
import re
import signal
import ssl
import subprocess
import tempfile
import time

import harness
from control import PSK, Control, Refused, context, psk_file, s_client
from harness import Target, case, check, equal, eventually
from scene import Neighbour, attack, check_log
from wire import Keyed

REFUSALS = 2000
LINES_PER_SECOND = 2  # that may be said of them, after the first ten


@attack("a wrong key, an unknown identity and a foreign certificate are let in nowhere")
def wrong_key(scene):
    for identity, key in (("guest", "43" * 32), ("nobody", PSK)):
        text = s_client(scene.address, identity, key, scene.source)
        check(re.search(r"alert|error|closed", text, re.IGNORECASE), f"{identity}: {text}")
    foreign = context(scene.good, scene.bad.issue("guest"))
    for tls in (foreign, context(scene.good)):
        with contextlib.suppress(Refused), scene.connect(tls) as client:
            client.send({"type": "hello", "versions": [2, 6], "name": "intruder"})
            equal(client.receive(), None, "answer to hello")


def renamed(authority, name):
    """A certificate whose common name is one that openssl's own command would not write: that of an
    issued one is replaced, and the whole signed again."""
    placeholder = "ZqJx" * 16
    certificate, key = authority.issue(placeholder[:len(name)])
    with open(certificate) as file:
        body = ssl.PEM_cert_to_DER_cert(file.read())
    tbs, rest = der_split(der_content(body))
    tbs = tbs.replace(placeholder[:len(name)].encode(), name)
    algorithm, _ = der_split(rest)
    base = f"{authority.prefix}-renamed"
    with open(f"{base}.tbs", "wb") as file:
        file.write(tbs)
    authority.openssl("dgst", "-sha256", "-sign", f"{authority.prefix}.key", "-out", f"{base}.sig",
                      f"{base}.tbs")
    with open(f"{base}.sig", "rb") as file:
        signature = file.read()
    whole = der(0x30, tbs + algorithm + der(0x03, b"\0" + signature))
    with open(certificate, "w") as file:
        file.write(ssl.DER_cert_to_PEM_cert(whole))
    return certificate, key


def der(tag, content):
    size = len(content)
    head = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + head + content


def der_split(data):
    """The first element, and what follows it."""
    size, head = data[1], 2
    if size & 0x80:
        head += size & 0x7f
        size = int.from_bytes(data[2:head], "big")
    return data[:head + size], data[head + size:]


def der_content(data):
    return data[2 + (data[1] & 0x7f if data[1] & 0x80 else 0):]


@attack("a certificate whose name is no identity is refused, and forges no line of the log",
        flags=["-v"])
def odd_certificates(scene):
    for name in (b"guest\0.evil", b"\0" * 4, b"x\nFORGED: all is well", b"\x1b[2J", b"a b c d", b"user:root",
                 b"*" * 4, b"a" * 64):
        tls = context(scene.good, renamed(scene.good, name))
        with contextlib.suppress(Refused), scene.connect(tls) as client:
            client.send({"type": "hello", "versions": [2, 6], "name": "odd"})
            answer = client.receive()
            check(answer is None or answer["type"] == "refused", f"{name}: {answer}")
    check_log(scene.target)


@attack("an identity that is no identity is not known, and forges no line of the log", flags=["-v"])
def odd_identities(scene):
    for identity in ("guest\nFORGED: all is well", "\x1b[2J", "a" * 200, "*", "anonymous",
                     "user:root"):
        text = s_client(scene.address, identity, PSK, scene.source)
        check(re.search(r"alert|error|closed", text, re.IGNORECASE), f"{identity!r}: {text}")
    check_log(scene.target)


def lines_about(target, pattern):
    """What the target has said of it so far: lines, and events that these lines account for."""
    target.read(0)
    found = [line for line in target.texts["err"].splitlines() if re.search(pattern, line)]
    counts = [re.search(r"\(and (\d+) more like this\)", line) for line in found]
    return len(found), len(found) + sum(int(count.group(1)) for count in counts if count)


@attack("a flood of refusals is few lines in the log, which account for each of them", rights="")
def log_flood(scene):
    pattern = "no right|not granted|refused"
    lines, events = lines_about(scene.target, pattern)
    begun = time.monotonic()
    with scene.intrude() as client:
        client.hello()
        for session in range(REFUSALS):
            client.open(scene.open_one, session, 1, "refused")
    eventually(lambda: lines_about(scene.target, pattern)[1] >= events + REFUSALS,
               lambda: f"{lines_about(scene.target, pattern)} account for {REFUSALS} refusals")
    took = time.monotonic() - begun
    said = lines_about(scene.target, pattern)[0] - lines
    check(said <= 10 + LINES_PER_SECOND * (took + 1), f"{said} lines in {took:.1f} s")


class Unread:
    """A target whose standard output and error nobody reads once it is ready: the pipes are full."""

    def __init__(self, folder):
        self.segment = harness.unique("unread")
        reader, self.writer = os.pipe()
        self.pipes = [reader]
        self.process = subprocess.Popen(
            [harness.TARGET, "--segment", f"{self.segment}=4M", "--listen", "127.0.0.1:0", "--psk",
             psk_file(folder, guest=PSK)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self.writer)
        text = b""
        while b"ready: " not in text:
            part = os.read(self.process.stdout.fileno(), 65536)
            check(part, "the target has ended")
            text += part
        self.address = ("127.0.0.1", int(re.search(rb"listen=127\.0\.0\.1:(\d+)", text).group(1)))
        fill(self.writer)
        with open(f"/proc/{self.process.pid}/fd/1", "wb", buffering=0) as stdout:
            fill(stdout.fileno())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        for fd in (*self.pipes, self.writer):
            os.close(fd)


def fill(pipe):
    """By a way of its own: whether a write waits is a property of the way, not of the pipe."""
    way = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(way, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(way, b"x")
    os.close(way)


@case("a target whose log nobody reads goes on serving, reloads, and ends when it is told to")
def log_stalls():
    with tempfile.TemporaryDirectory() as folder, Unread(folder) as target:
        for _ in range(50):
            # A message that is none: one line of the log each, if it is not kept to a rate.
            with contextlib.suppress(Refused), Keyed(target.address, "guest", PSK) as client:
                client.send_bytes(b"\0\0\0\0")
                client.receive()
        target.process.send_signal(signal.SIGHUP)
        with Neighbour(target.address, target.segment) as neighbour:
            neighbour.is_served()
        target.process.send_signal(signal.SIGTERM)
        equal(target.process.wait(harness.HANG_SECONDS), 0, "exit code")


def stderr_to(where, before=":"):
    """What runs a target with its standard error at a place that only it sees."""
    return ["sh", "-c", f'{before} && exec "$@" 2>>{where}', "sh"]


def serves_without_log(prefix):
    with tempfile.TemporaryDirectory() as folder:
        keys = psk_file(folder, guest=PSK)
        with Target("-v", "--listen", "127.0.0.1:0", "--psk", keys, prefix=prefix) as target:
            port = int(target.wait_for(r"^ready: .* listen=127\.0\.0\.1:(\d+)$").group(1))
            for _ in range(100):
                with Control(("127.0.0.1", port)) as client:
                    client.send_bytes(b"\x16\x03\x01" + b"x" * 100)
                    client.closed()
            target.signal(signal.SIGHUP)
            with Neighbour(("127.0.0.1", port), target.name) as neighbour:
                neighbour.is_served()
            target.stop()


@case("a target whose log takes nothing any more goes on serving")
def log_takes_nothing():
    serves_without_log(stderr_to("/dev/full"))


@case("a target whose log fills its disk goes on serving")
def log_disk_full():
    if os.geteuid() != 0:
        raise harness.Skip("only root can mount a small disk")
    mount = "mount -t tmpfs -o size=4k log /mnt && head -c 4000 /dev/zero >/mnt/log"
    serves_without_log(["unshare", "--mount", *stderr_to("/mnt/log", mount)])


if __name__ == "__main__":
    harness.main()
