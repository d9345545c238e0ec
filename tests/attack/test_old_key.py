# SPDX-License-Identifier: Apache-2.0
"""The man with an old key: he was let in once, and what let him in is over.

He may hold a connection until the target says so. Whatever he kept (a key, a certificate, a token, a
connection that is half made) opens nothing any more.
"""
import contextlib

import harness
from control import Refused
from harness import check
from scene import attack
from wire import attach


def refused(function, what):
    """It must not come about."""
    with contextlib.suppress(Refused):
        function().__exit__()
        check(False, f"{what}: it was let in")


@attack("a token of another client, of one that has left, or a guessed one attaches nothing")
def tokens(scene):
    with scene.intrude() as client:
        token = client.hello()["token"]
        with attach(scene.intrude, client):
            pass
        for connect, wrong in ((lambda: scene.connect(scene.other), token),
                               (scene.intrude, "0" * len(token)), (scene.intrude, token[:-1]),
                               (scene.intrude, "")):
            client.welcome["token"] = wrong
            refused(lambda: attach(connect, client), repr(wrong))
    client.welcome["token"] = token
    refused(lambda: attach(scene.intrude, client), "after the end")


if __name__ == "__main__":
    harness.main()
