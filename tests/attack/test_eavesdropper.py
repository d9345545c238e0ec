# SPDX-License-Identifier: Apache-2.0
"""The eavesdropper sees, or records and sends again, what others say on the network.

With TLS he learns how much is moved and when. What he recorded is worth nothing.
"""
import contextlib
import json
import select
import socket
import struct
import threading

import harness
from control import Control, Refused
from harness import check
from scene import attack
from wire import attach, invite


class Recorder(threading.Thread):
    """Between one client and the target; keeps what both say."""

    def __init__(self, scene):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.target = socket.create_connection(scene.address, source_address=(scene.source, 0))
        self.said = {"client": b"", "target": b""}

    def run(self):
        client, _ = self.listener.accept()
        with client, self.target, self.listener:
            ways = {client: ("client", self.target), self.target: ("target", client)}
            while True:
                for each in select.select(list(ways), [], [])[0]:
                    who, to = ways[each]
                    data = b""
                    with contextlib.suppress(OSError):
                        data = each.recv(65536)
                        to.sendall(data)
                    if not data:
                        return
                    self.said[who] += data


@attack("a recorded session is worth nothing when it is sent again")
def replayed_session(scene):
    recorder = Recorder(scene)
    recorder.start()
    with Control(recorder.address, scene.intruder) as client:
        client.hello()
        client.open(scene.open_one)
    recorder.join()
    check(len(recorder.said["client"]) > 500, "nothing was recorded")
    with scene.connect() as client:  # nothing but the handshake's refusal may come back
        client.send_bytes(recorder.said["client"])
        client.closed()


PLAIN = {"flags": ["--tcp-plain"]}


class Overheard:
    """A data connection without TLS, all of which was overheard: how it was attached, and a WRITE."""

    def __init__(self, scene, control, link, secret):
        recorder = Recorder(scene)
        recorder.start()
        self.connection = control.welcome["connection"]
        self.data = attach(lambda: Control(recorder.address), self.connection, link, secret)
        self.recorder = recorder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.data.__exit__()
        self.recorder.join()

    def messages(self):
        """What the client said until it was attached."""
        said, messages = self.recorder.said["client"], []
        while len(messages) < 2:
            length = struct.unpack("<I", said[:4])[0]
            messages.append(json.loads(said[4:4 + length]))
            said = said[4 + length:]
        return messages


def replay(scene, messages, tls=None):
    """Say it again on a connection of one's own: the last that the target answers with."""
    with scene.connect(tls) as eavesdropper:
        for message in messages:
            eavesdropper.send(message)
            answer = eavesdropper.receive()
            if not answer or answer["type"] != "challenge":
                break
        return answer["type"] if answer else "closed"


def not_attached(what, answer):
    check(answer in ("refused", "closed"), f"{what}: {answer}")


@attack("--tcp-plain: what attached a data connection attaches no other", **PLAIN)
def overheard_attach(scene):
    with scene.intrude() as control:
        control.hello()
        control.open(scene.open_one)
        secret = invite(control, 1, count=2)
        with Overheard(scene, control, 1, secret) as overheard:
            said = overheard.messages()
            for count in range(3):
                not_attached(f"replayed, {count}", replay(scene, said))
                not_attached("replayed over TLS by another client",
                             replay(scene, said, scene.other))
            not_attached("the proof alone", replay(scene, said[1:]))
            # He raced the client and has not used up what it was invited to.
            with attach(scene.connect, overheard.connection, 1, secret):
                not_attached("replayed when all have come", replay(scene, said))
        not_attached("replayed after its end", replay(scene, said))
        with attach(scene.connect, overheard.connection, 1, invite(control, 1)):
            not_attached("replayed after another invitation", replay(scene, said))
    not_attached("replayed after the client's end", replay(scene, said))


@attack("--tcp-plain: an invitation is for its own link and connection", **PLAIN)
def overheard_elsewhere(scene):
    with scene.intrude() as control, scene.connect(scene.other) as other:
        for each in (control, other):
            each.hello()
            each.open(scene.open_one)
        connection = control.welcome["connection"]
        secret, own = invite(control, 1), invite(other, 1)
        for what, wrong, link, known in (("his own secret", connection, 1, own),
                                         ("another link", connection, 2, secret),
                                         ("another connection", other.welcome["connection"], 1,
                                          secret)):
            try:
                attach(scene.connect, wrong, link, known).__exit__()
            except Refused:
                continue
            check(False, f"attached with {what}")


@attack("without --tcp-plain no data connection is attached without TLS")
def plain_not_allowed(scene):
    with scene.intrude() as control:
        control.hello()
        control.open(scene.open_one)
        secret = invite(control, 1)
        with contextlib.suppress(Refused):
            attach(scene.connect, control.welcome["connection"], 1, secret).__exit__()
            check(False, "attached without TLS")


if __name__ == "__main__":
    harness.main()
