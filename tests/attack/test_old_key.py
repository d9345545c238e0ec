# SPDX-License-Identifier: Apache-2.0
"""The man with an old key: he was let in once, and what let him in is over.

He may hold a connection until the target says so. Whatever he kept (a key, a certificate, an invitation, a
connection that is half made) opens nothing any more.
"""
import contextlib
import errno
import signal
import ssl
import tempfile
import time

import harness
from control import VERSIONS, Authority, Control, Refused, context, framed
from harness import Target, case, check
from scene import attack
from wire import Data, attach, claim, expected, invite, prove


class HalfShaken:
    """A TLS handshake that stops before its last message, which finish() sends."""

    def __init__(self, scene, tls):
        self.connection = scene.connect()
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self.received, self.sent)
        while True:
            try:
                self.tls.do_handshake()
                return  # the last message is in self.sent
            except ssl.SSLWantReadError:
                self.connection.send_bytes(self.sent.read())
                self.received.write(self.connection.receive_bytes())

    def finish(self, message):
        """Returns what the target says to it, which may be nothing."""
        self.tls.write(framed(message))
        self.connection.send_bytes(self.sent.read())
        said = b""
        while data := self.connection.receive_bytes():
            self.received.write(data)
            with contextlib.suppress(ssl.SSLError):
                said += self.tls.read()
        return said


@contextlib.contextmanager
def other_authority(scene):
    """While the block runs the target trusts another authority than the one that has signed the
    intruder's certificate."""
    with open(scene.good.path) as good, open(scene.bad.path) as bad:
        texts = good.read(), bad.read()

    def trust(text):
        before = scene.target.texts["out"].count("reloaded")
        with open(scene.good.path, "w") as file:
            file.write(text)
        scene.target.signal(signal.SIGHUP)
        harness.eventually(lambda: scene.target.read(0.1) and
                           scene.target.texts["out"].count("reloaded") > before, "no reload",
                           scene.target)

    trust(texts[1])
    yield
    trust(texts[0])


HELLO = {"type": "hello", "versions": VERSIONS, "name": "old"}


@attack("a certificate that was taken away says no hello, however far it had come")
def taken_away(scene):
    half = HalfShaken(scene, scene.intruder)
    with half.connection, scene.intrude() as silent, scene.intrude() as welcomed:
        welcomed.hello()
        with other_authority(scene):
            check(b"welcome" not in half.finish(HELLO), "a half made connection was let in")
            silent.send(HELLO)
            answer = silent.receive()
            check(answer is None or answer.get("error") == errno.EKEYREVOKED, f"silent: {answer}")
            welcomed.send({"type": "open", "session": 1, "segment": scene.open_one, "rights": 1,
                           "transports": ["tcp"]})
            while answer := welcomed.receive():
                check(answer["type"] == "closing", f"one that was welcome: {answer}")
            scene.serve_another()
    with scene.intrude() as again:  # what is trusted again is let in again
        again.hello()


def refused(function, what):
    """It must not come about."""
    with contextlib.suppress(Refused):
        function().__exit__()
        check(False, f"{what}: it was let in")


@attack("an invitation of another, an old one, a used one or a guessed one attaches nothing")
def invitations(scene):
    def others():
        return scene.connect(scene.other)

    with scene.intrude() as client, others() as other:
        ours, theirs = (each.hello()["connection"] for each in (client, other))
        for each in (client, other):
            each.open(scene.open_one)
        secret, foreign = invite(client, 1), invite(other, 1)
        for what, connect, connection, link, known in (
                ("by another identity", others, ours, 1, secret),
                ("with another's secret", scene.intrude, ours, 1, foreign),
                ("for another's connection", scene.intrude, theirs, 1, secret),
                ("for another link", scene.intrude, ours, 2, secret),
                ("with a guessed secret", scene.intrude, ours, 1, "00" * 16),
                ("with no secret", scene.intrude, ours, 1, ""),
                ("for no connection", scene.intrude, "f" * 16, 1, secret)):
            refused(lambda: attach(connect, connection, link, known), what)
        with attach(scene.intrude, ours, 1, secret):
            refused(lambda: attach(scene.intrude, ours, 1, secret), "used up")
        old, new = invite(client, 3), invite(client, 3)
        refused(lambda: attach(scene.intrude, ours, 3, old), "replaced by a new one")
        with attach(scene.intrude, ours, 3, new):
            pass
        late = invite(client, 4)
    refused(lambda: attach(scene.intrude, ours, 4, late), "after the end of the client")


@attack("an invitation that is too old attaches nothing")
def late(scene):
    with scene.intrude() as client:
        connection = client.hello()["connection"]
        client.open(scene.open_one)
        secret = invite(client, 1, count=2)
        with attach(scene.intrude, connection, 1, secret), scene.intrude() as waiting:
            nonce = claim(waiting, connection, 1)
            time.sleep(2)  # he has five seconds, the invitation ten
            expected(waiting, {"type": "proof", "proof": prove(secret, connection, 1, nonce)},
                     "attached")
        secret = invite(client, 1)
        time.sleep(11)
        refused(lambda: attach(scene.intrude, connection, 1, secret), "after eleven seconds")


@case("whose certificate is revoked is thrown out at the reload, and not let in again")
def revoked():
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(folder, "good")
        certificate, key = authority.issue("target", "127.0.0.1")
        stolen, kept = authority.issue("stolen"), authority.issue("kept")
        with Target("--listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key,
                    "--tls-ca", authority.path, "--tls-crl", authority.revoke(), size="4M") as target:
            address = ("127.0.0.1", int(target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1)))

            def connect(pair):
                return Control(address, context(authority, pair))

            with Data(lambda: connect(stolen), target.name) as thief, \
                    Data(lambda: connect(kept), target.name) as other:
                thief.read(0, 4096)
                authority.revoke(stolen[0])
                target.signal(signal.SIGHUP)
                target.wait_for("^reloaded ")
                thief.control.closed()
                thief.data.closed()
                other.read(0, 4096)
            with connect(kept) as client:
                client.hello()
            with contextlib.suppress(Refused), connect(stolen) as client:
                client.send({"type": "hello", "versions": [2, 6], "name": "thief"})
                answer = client.receive()
                check(answer is None or answer["type"] == "refused", f"answer: {answer}")
            target.wait_for("was revoked by its authority", "err")
            target.stop()


if __name__ == "__main__":
    harness.main()
