# SPDX-License-Identifier: Apache-2.0
"""The refused one tries to prove who he is, and fails: a wrong key, an identity that nobody knows, a
certificate of another authority.

He may make the target carry out handshakes that fail. He learns nothing of segments or clients.
"""
import contextlib
import re

import harness
from control import PSK, Refused, context, s_client
from harness import check, equal
from scene import attack


@attack("a wrong key, an unknown identity and a foreign certificate are let in nowhere")
def wrong_key(scene):
    for identity, key in (("guest", "43" * 32), ("nobody", PSK)):
        text = s_client(scene.address, identity, key, scene.source)
        check(re.search(r"alert|error|closed", text, re.IGNORECASE), f"{identity}: {text}")
    foreign = context(scene.good, scene.bad.issue("guest"))
    for tls in (foreign, context(scene.good)):
        with contextlib.suppress(Refused), scene.connect(tls) as client:
            client.send({"type": "hello", "versions": [2, 4], "name": "intruder"})
            equal(client.receive(), None, "answer to hello")


if __name__ == "__main__":
    harness.main()
