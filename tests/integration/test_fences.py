# SPDX-License-Identifier: Apache-2.0
"""What was given up at one address of a target lands over nothing that is written by another one.

Started as test_fences.py PATH_OF_SLUICE_TARGET PATH_OF_SLUICE_INITIATOR, beside the program that
SLUICE_REMOTES names.
"""
import signal
import time

import harness
from harness import Target, case, check, equal, memory_of
from remotes import Remotes

SIZE = 16 << 20
NEW = 65536


def given_up(target, remotes, remote, other):
    """Writes time out while the target is stopped, with much of them on its way; what is written by
    the other remote is not posted before the target has ended that."""
    equal(remotes.write(remote, "w")(), "0", "a write over a link that is there", remotes)
    target.freeze()
    equal(remotes.write(remote, "o", count=16, length=1 << 20, timeout_ms=500)(),
          "ETIMEDOUT lands", "writes at a stopped target", remotes)
    equal(remotes.write(other, "n", timeout_ms=300)(), "ETIMEDOUT", "a later one", remotes)
    written = remotes.write(other, "n", length=NEW)
    target.signal(signal.SIGCONT)
    equal(written(), "0", "one after it", remotes)
    memory = memory_of(target, SIZE)
    for _ in range(20):
        check(memory[:NEW] == b"n" * NEW, "an old write has landed over a later one")
        time.sleep(0.02)


@case("a write that timed out lands over none by another address, socket or transport")
def other_address():
    with Target("--listen", "0.0.0.0:0", "--insecure", size=SIZE) as target, Remotes() as remotes:
        port = target.wait_for(r"listen=0\.0\.0\.0:(\d+)").group(1)
        remotes.connect("tcp", f"{target.name}@127.0.0.1:{port}")
        for transport, address in (("tcp", f"@127.0.0.2:{port}"), ("tcp", ""), ("shm", "")):
            remotes.connect(transport, target.name + address)
        for other in range(1, 4):
            given_up(target, remotes, 0, other)
        given_up(target, remotes, 2, 0)
        target.stop()


if __name__ == "__main__":
    harness.main()
