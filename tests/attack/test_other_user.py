# SPDX-License-Identifier: Apache-2.0
"""Another user of the target's host, whom nobody has let in.

He may connect to the target's Unix sockets and be refused, ten times a second with a reason. Nothing is passed to him, and what was
passed to others he does not reach.
"""
import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import tempfile
import time

import harness
from control import VERSIONS, Authority, Control, context, framed, psk_file
from harness import (Target, case, check, equal, need_root_to_change_user, report_of,
                     unique)
from scene import FLOOD_SECONDS, OTHER_USER, attack, user_identity
from wire import Keyed, Local, as_user, refusal

FLOODS = 2  # processes


@attack("a user who is not allowed is told so, and is passed nothing")
def not_allowed(scene):
    need_root_to_change_user()

    def connect():
        with Local(scene.open_one) as client:
            client.send({"type": "hello", "versions": [2, 6], "name": "other"})
            answer = client.receive()
            client.closed()
            return [answer and answer["type"], len(client.fds)]

    check(as_user(OTHER_USER, connect) in (["refused", 0], [None, 0]), "he was let in")
    equal(scene.target.process.poll(), None, "exit code of the target", scene.target)


@attack("he opens none of the descriptors of the target or of its clients through /proc")
def through_proc(scene):
    need_root_to_change_user()

    def open_all():
        opened = []
        for pid in (scene.target.pid, scene.client.pid):
            for fd in range(256):
                for flags in (os.O_RDONLY, os.O_RDWR):
                    path = f"/proc/{pid}/fd/{fd}"
                    if refusal(os.open, path, flags) == "done":
                        opened.append(path)
            if refusal(os.open, f"/proc/{pid}/mem", os.O_RDONLY) == "done":
                opened.append(f"the memory of {pid}")
        return opened

    equal(as_user(OTHER_USER, open_all), [], "what he opened")


@attack("his flood of connections is closed without a word, and keeps nobody out")
def flood(scene):
    need_root_to_change_user()

    def connect():
        told = opened = 0
        until = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(harness.HANG_SECONDS)
                connected.connect(f"\0sluice/{scene.open_one}")
                opened += 1
                told += bool(connected.recv(65536))
        return [told, opened]

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(FLOODS) as pool:
        floods = [pool.submit(as_user, OTHER_USER, connect) for _ in range(FLOODS)]
        while not all(flood.done() for flood in floods):
            scene.serve_another()
        told, opened = map(sum, zip(*(flood.result() for flood in floods)))
    most = 20 + 10 * (time.monotonic() - begun + 1)  # SERVER_USER_ACCEPTS_BURST, _PER_SECOND
    check(told <= most, f"{told} of {opened} were told why", scene.target)


def dumped(pid):
    """What a core dump of the process could hold: all that it can read and has not kept out of it."""
    with open(f"/proc/{pid}/smaps") as file:
        regions = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r.*\n(?:(?![0-9a-f]+-).*\n)*?VmFlags:(.*)$",
                             file.read(), re.MULTILINE)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for begin, end, flags in regions:
            if "dd" not in flags.split():
                with contextlib.suppress(OSError, ValueError, OverflowError):
                    memory.seek(int(begin, 16))
                    yield memory.read(int(end, 16) - int(begin, 16))


def private_number(path):
    """The secret of a private key on a curve."""
    shown = harness.run(["openssl", "pkey", "-in", path, "-noout", "-text"]).out
    digits = re.search(r"priv:\n((?:\s+[0-9a-f:]+\n)+)", shown).group(1)
    return bytes.fromhex(re.sub(r"[^0-9a-f]", "", digits))[-32:]


@case("a core dump of the target holds no key: not while it serves, nor after a reload")
def core_dump():
    if harness.SANITIZED:
        raise harness.Skip("AddressSanitizer keeps what was freed, and so what OpenSSL decoded")
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(folder, "good")
        certificate, key = authority.issue("target", "127.0.0.1")
        secret, other = os.urandom(32).hex(), os.urandom(32).hex()
        keys = psk_file(folder, guest=secret, other=other)
        with Target("--listen", "127.0.0.1:0", "--psk", keys, "--tls-cert", certificate, "--tls-key",
                    key, "--tls-ca", authority.path, size="4M") as target:
            address = ("127.0.0.1", int(target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1)))
            number = private_number(key)
            patterns = {"private key": number, "private key, as a number": number[::-1]}
            for name, text in (("key", secret), ("other key", other)):
                patterns[name] = bytes.fromhex(text)
                patterns[name + " in hexadecimal"] = text.encode()
            with Keyed(address, "guest", secret) as client, \
                    Control(address, context(authority, authority.issue("carol"))) as second:
                client.hello()
                second.hello()
                for _ in range(2):
                    found = [name for memory in dumped(target.pid)
                             for name, pattern in patterns.items() if pattern in memory]
                    equal(found, [], "found in what would be dumped")
                    target.signal(signal.SIGHUP)
                    target.wait_for("^reloaded ")
            target.stop()




UNMAPPED = ("unshare", "--user", "--map-root-user")


@case("in a user namespace, allowing nobody lets in nobody whom it does not map")
def unmapped_user():
    need_root_to_change_user()
    if harness.run([*UNMAPPED, "true"]).code:
        raise harness.Skip("no user namespace can be made here")

    with Target("--allow-user", str(harness.NOBODY), size="1M", prefix=UNMAPPED) as target:
        def connect():
            with Local(target.name) as client:
                client.send({"type": "hello", "versions": VERSIONS, "name": "other"})
                answer = client.receive() or {}
                return f"{answer.get('type')} {len(client.fds)}: {answer.get('text')}"

        for uid in (OTHER_USER, harness.NOBODY):
            said = as_user(uid, connect)
            check(said.startswith("refused 0: ") and "user namespace" in said, f"{uid}: {said}")
        with Local(target.name) as ours:
            ours.hello()
            ours.open(target.name)
        target.stop()


class Squatter:
    """A process of another user that has taken the abstract name of a segment; it answers whatever
    it hears with a welcome. lines: what it says of itself."""

    def __init__(self, name):
        ours, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setgroups([])
                os.setgid(OTHER_USER)
                os.setuid(OTHER_USER)
                self.squat(name, lambda line: os.write(theirs, f"{line}\n".encode()))
            finally:
                os._exit(1)
        os.close(theirs)
        self.lines = open(ours)
        equal(self.lines.readline(), "there\n", "a squatter")

    @staticmethod
    def squat(name, say):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"\0sluice/{name}")
        listener.listen()
        say("there")
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                say(f"heard {client.recv(100)}")
                client.sendall(framed({"type": "welcome"}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.lines.close()


@case("who has taken a segment's name is named, and keeps a target with another way from nothing")
def name_taken():
    need_root_to_change_user()
    name = unique("taken")
    with Squatter(name) as holder, tempfile.TemporaryDirectory() as folder:
        result = harness.run([harness.TARGET, "--segment", f"{name}=1M"])
        check(result.code != 0, "it started", result)
        for clue in (f"process {holder.pid} (", user_identity(OTHER_USER), "--socket",
                     "not allowed here"):
            check(clue in result.err, f"nothing of {clue!r}", result)
        path = os.path.join(folder, "socket")
        with Target("--socket", path, "--listen", "127.0.0.1:0", size="16M", name=name) as target:
            port = target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1)
            target.wait_for(f"process {holder.pid} ", "err")
            with Local(path) as client:
                client.hello()
                client.open(name)
            report = report_of("--remote_segment", f"{name}@127.0.0.1:{port}")
            equal(report["transport"], "shm", "transport", report["result"])
            target.stop()


@case("clients say nothing to whoever has taken the name of their target")
def squatter_is_not_spoken_to():
    need_root_to_change_user()
    name = unique("taken")
    with Squatter(name) as holder:
        result = harness.initiator("--remote_segment", name)
        check(result.code != 0 and "no target that we trust" in result.err and
              f"process {holder.pid})" in result.err, "it is not named", result)
        equal(holder.lines.readline(), "heard b''\n", "what a client said to it")


@case("of a target that has the name already it is said that it is one")
def taken_by_a_target():
    with Target(size="1M") as first:
        result = harness.run([harness.TARGET, "--segment", f"{first.name}=1M"])
        check(result.code != 0 and f"process {first.pid} (sluice-target)" in result.err and
              "answers as a target" in result.err, "another reason", result)


if __name__ == "__main__":
    harness.main()
