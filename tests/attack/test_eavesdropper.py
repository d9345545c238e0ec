# SPDX-License-Identifier: Apache-2.0
"""The eavesdropper sees, or records and sends again, what others say on the network.

With TLS he learns how much is moved and when. What he recorded is worth nothing.
"""
import contextlib
import select
import socket
import threading

import harness
from control import Control
from harness import check
from scene import attack


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
    with scene.connect() as client:  # nothing but the handshake's refusal may come back
        client.send_bytes(recorder.recorded)
        client.closed()


if __name__ == "__main__":
    harness.main()
