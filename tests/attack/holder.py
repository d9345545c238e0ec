# SPDX-License-Identifier: Apache-2.0
"""A client with very many sessions over one connection, in a process of its own, to be killed."""
import contextlib
import os
import signal

import harness
from control import framed
from wire import READ_RIGHT

AT_ONCE = 200  # opens on the way


def open_all(client, segment, count):
    """Open as many sessions, with no more answers outstanding than are read soon."""
    client.hello()
    for first in range(0, count, AT_ONCE):
        client.send_bytes(b"".join(framed(
            {"type": "open", "session": session, "segment": segment, "rights": READ_RIGHT,
             "transports": [client.transport]}) for session in range(first, first + AT_ONCE)))
        for _ in range(AT_ONCE):
            answer = client.receive()
            harness.check(answer and answer["type"] == "opened", f"open: {answer}")
        for fd in getattr(client, "fds", []):
            os.close(fd)
        client.fds = []


class Holder:
    """connect: makes the connection; uid: the user who does it, if another than ours."""

    def __init__(self, connect, segment, count, uid=None):
        ours, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if uid is not None:
                    os.setgroups([])
                    os.setgid(uid)
                    os.setuid(uid)
                open_all(connect(), segment, count)
                os.write(theirs, b"ready")
                signal.pause()
            except BaseException as error:
                os.write(theirs, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(1)
        os.close(theirs)
        self.pipe = ours
        self.said = os.read(ours, 4096).decode()

    def __enter__(self):
        harness.equal(self.said, "ready", "a client with very many sessions")
        return self

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def __exit__(self, *_):
        self.kill()
        os.waitpid(self.pid, 0)
        os.close(self.pipe)
