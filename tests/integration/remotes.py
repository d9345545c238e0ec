# SPDX-License-Identifier: Apache-2.0
"""Several remotes of one engine, by the program remotes.c."""
import errno
import os
import subprocess

from harness import Process, equal


class Remotes(Process):
    """tls: certificate, key and authority, as paths."""

    def __init__(self, *tls):
        super().__init__(os.environ["SLUICE_REMOTES"], *tls,
                         stdin=subprocess.PIPE)
        self.asked = 0

    def __exit__(self, *_):
        self.process.stdin.close()
        super().__exit__()

    def say(self, *words):
        """Returns a function that waits for the answer: "0", the error's name, and " lands"."""
        self.asked += 1
        number = self.asked
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()

        def answer():
            status, text = self.wait_for(rf"^{number} (-?\d+) (.*)$").groups()
            name = errno.errorcode[-int(status)] if status != "0" else "0"
            return f"{name} lands" if text == "lands" else name
        return answer

    def connect(self, transport, name, expected="0"):
        equal(self.say("open", transport, name)(), expected, f"opening {name}", self)

    def write(self, remote, letter, count=1, length=65536, timeout_ms=60000):
        return self.say("write", remote, count, length, letter, timeout_ms)
