# SPDX-License-Identifier: Apache-2.0
"""Another user of the target's host, whom nobody has let in.

He may connect to the target's Unix sockets and be refused. Nothing is passed to him, and what was
passed to others he does not reach.
"""
import harness
from harness import check, equal, need_root_to_change_user
from scene import OTHER_USER, attack
from wire import Local, as_user


@attack("a user who is not allowed is told so, and is passed nothing")
def not_allowed(scene):
    need_root_to_change_user()

    def connect():
        with Local(scene.open_one) as client:
            client.send({"type": "hello", "versions": [2, 4], "name": "other"})
            answer = client.receive()
            client.closed()
            return f"{answer and answer['type']} {len(client.fds)}"

    said = as_user(OTHER_USER, connect)
    check(said in ("refused 0", "None 0"), f"user {OTHER_USER}: {said}")
    equal(scene.target.process.poll(), None, "exit code of the target", scene.target)


if __name__ == "__main__":
    harness.main()
