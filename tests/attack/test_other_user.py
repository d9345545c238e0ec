# SPDX-License-Identifier: Apache-2.0
"""Another user of the target's host, whom nobody has let in.

He may connect to the target's Unix sockets and be refused, ten times a second with a reason. Nothing is passed to him, and what was
passed to others he does not reach.
"""
import concurrent.futures
import contextlib
import os
import socket
import time

import harness
from harness import check, equal, need_root_to_change_user
from scene import FLOOD_SECONDS, OTHER_USER, attack
from wire import Local, as_user, refusal

FLOODS = 2  # processes

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


@attack("his flood of connections is closed without a word, and keeps nobody out")
def flood(scene):
    need_root_to_change_user()

    def connect():
        told = opened = 0
        until = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(harness.HANG_SECONDS)
                connected.connect(f"\0sluice/{scene.open_one}")
                opened += 1
                told += bool(connected.recv(65536))
        return [told, opened]

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(FLOODS) as pool:
        floods = [pool.submit(as_user, OTHER_USER, connect) for _ in range(FLOODS)]
        while not all(flood.done() for flood in floods):
            scene.serve_another()
        told, opened = map(sum, zip(*(flood.result() for flood in floods)))
    most = 20 + 10 * (time.monotonic() - begun + 1)  # SERVER_USER_ACCEPTS_BURST, _PER_SECOND
    check(told <= most, f"{told} of {opened} were told why", scene.target)


if __name__ == "__main__":
    harness.main()
