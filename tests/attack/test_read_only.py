# SPDX-License-Identifier: Apache-2.0
"""A client that may read one segment and write none.

It may ask for what its budget allows, and leave unread what it asked for. Nothing of anybody's memory
changes through it, and what it does not read holds up nobody.
"""
import harness
from scene import attack
from wire import READ, READ_RIGHT, Data

READER = {"rights": "read"}


def reader(scene):
    return Data(scene.intrude, scene.open_one, READ_RIGHT)


@attack("a client that asks for much and reads nothing holds up nobody", **READER)
def never_reads(scene):
    with reader(scene) as each:
        each.data.socket.settimeout(1)
        for _ in range(20000):
            if not each.data.send_bytes(each.head(READ, 65536)):
                break
        scene.serve_another()


if __name__ == "__main__":
    harness.main()
