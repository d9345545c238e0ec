# SPDX-License-Identifier: Apache-2.0
"""The man with an old key: he was let in once, and what let him in is over.

He may hold a connection until the target says so. Whatever he kept (a key, a certificate, an invitation, a
connection that is half made) opens nothing any more.
"""
import contextlib
import signal
import tempfile

import harness
from control import Authority, Control, Refused, context
from harness import Target, case, check
from scene import attack
from wire import Data, attach, invite


def refused(function, what):
    """It must not come about."""
    with contextlib.suppress(Refused):
        function().__exit__()
        check(False, f"{what}: it was let in")


@attack("an invitation of another client, one used up or of a client that has left, or a guessed "
        "one attaches nothing")
def invitations(scene):
    with scene.intrude() as client:
        connection = client.hello()["connection"]
        client.open(scene.open_one)
        secret = invite(client)
        with attach(scene.intrude, client, secret):
            refused(lambda: attach(scene.intrude, client, secret), "used up")
        secret = invite(client)
        for connect, wrong, link, number in (
                (lambda: scene.connect(scene.other), secret, 1, connection),
                (scene.intrude, "00" * 16, 1, connection),
                (scene.intrude, secret, 2, connection),
                (scene.intrude, secret, 1, f"{int(connection, 16) + 1:016x}"),
                (scene.intrude, client.welcome["secret"], 1, connection)):
            refused(lambda: attach(connect, client, wrong, link, number), (wrong, link, number))
        secret = invite(client)
    refused(lambda: attach(scene.intrude, client, secret), "after the end")


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
                client.send({"type": "hello", "versions": [2, 4], "name": "thief"})
                answer = client.receive()
                check(answer is None or answer["type"] == "refused", f"answer: {answer}")
            target.wait_for("was revoked by its authority", "err")
            target.stop()


if __name__ == "__main__":
    harness.main()
