# SPDX-License-Identifier: Apache-2.0
"""A client that may read and write one segment.

What it writes there is its own affair, and that of those who share the segment with it. Of other
segments it reaches nothing, and others are served beside it.
"""
import errno
import random

import harness
from harness import equal
from scene import SEGMENT_BYTES, attack
from wire import DONE, READ, WRITE


@attack("garbage on a data connection ends it, and touches nothing")
def garbage(scene):
    chance = random.Random(1)
    for _ in range(20):
        with scene.data() as each:
            for _ in range(16):
                if not each.data.send_bytes(chance.randbytes(65536)):
                    break
            each.data.closed()


@attack("requests beyond a segment, or for a segment of somebody else, are refused")
def out_of_range(scene):
    with scene.data() as one, scene.data() as other:
        last = SEGMENT_BYTES - 4096
        one.write(last, b"x" * 4096)
        foreign = {key: other.grant[key] for key in ("handle", "generation")}
        bad = [(-errno.ERANGE, READ, last + 1, {}), (-errno.ERANGE, READ, (1 << 64) - 4096, {}),
               (-errno.ERANGE, WRITE, SEGMENT_BYTES, {}), (-errno.EACCES, READ, 0, foreign),
               (-errno.EACCES, WRITE, 0, foreign),
               (-errno.EKEYREVOKED, READ, 0, {"generation": one.grant["generation"] + 1}),
               (-errno.EKEYREVOKED, READ, 0, {"handle": one.grant["handle"] + 1000}),
               (-errno.EACCES, READ, 0, {"handle": 0xffffffff})]
        for error, kind, offset, changes in bad:
            body = b"x" * 4096 if kind == WRITE else b""
            equal(one.carry_out(kind, 4096, offset, body, **changes)[:2], (DONE, error),
                  f"answer to {kind} at {offset} with {changes}")


if __name__ == "__main__":
    harness.main()
