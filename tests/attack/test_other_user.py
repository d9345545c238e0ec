# SPDX-License-Identifier: Apache-2.0
"""Another user of the target's host, whom nobody has let in.

He may connect to the target's Unix sockets and be refused. Nothing is passed to him, and what was
passed to others he does not reach.
"""
import os

import harness
from harness import check, equal, need_root_to_change_user
from scene import OTHER_USER, attack
from wire import Local, as_user, refusal


@attack("a user who is not allowed is told so, and is passed nothing")
def not_allowed(scene):
    need_root_to_change_user()

    def connect():
        with Local(scene.open_one) as client:
            client.send({"type": "hello", "versions": [2, 4], "name": "other"})
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


if __name__ == "__main__":
    harness.main()
