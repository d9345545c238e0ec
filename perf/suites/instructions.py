# SPDX-License-Identifier: Apache-2.0
"""Instructions of the client's own in user space for one operation, counted by valgrind."""
import os
import re
import shutil
import subprocess

from harness import programs, report

HUGEPAGES = 0

PROGRAM = "instructions"
COUNTED = ("instructions_submit", "instructions_reap")
BATCHES = (50, 150)  # of two runs, whose difference is what operations take
TRIES = 3

# Transport, kind, bytes, how many at a time, and how many instructions each may take: RDMA by what
# was decided for it; TCP two thirds of what it took before an operation became one request from the
# ring to its completion.
ROWS = (
    ("shm", "write", 8, 1, None),
    ("shm", "write", 8, 16, None),
    ("tcp", "write", 8, 1, 987),
    ("tcp", "write", 8, 16, None),
    ("tcp", "read", 8, 1, 1001),
    ("verbs", "read", 64, 1, 650),
    ("verbs", "read", 64, 16, 650),
    ("verbs", "write", 64, 1, 650),
    ("verbs", "write", 64, 16, 650),
)


class Early(Exception):
    """What was waited for had not come when it was looked for."""


def collected(bench, transport, kind, size, batch, count):
    """Run that many batches under valgrind; give back the instructions of all."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
               *(f"--toggle-collect={name}" for name in COUNTED),
               os.path.join(bench.folder, PROGRAM), transport, kind, str(size), str(batch),
               str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          timeout=programs.PROGRAM_TIMEOUT_S)
    counts = re.findall(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not counts:
        raise programs.Failure(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    if int(done.stdout) > 0:
        raise Early
    return max(map(int, counts))  # the target is another process, and counts nothing


def instructions(bench, transport, kind, size, batch):
    for _ in range(TRIES):
        try:
            few, many = (collected(bench, transport, kind, size, batch, count)
                         for count in BATCHES)
            return (many - few) / (BATCHES[1] - BATCHES[0]) / batch
        except Early:
            pass
    raise programs.Failure(f"{transport}: operations took longer than they are waited for")


def rows(bench):
    if not shutil.which("valgrind"):
        yield report.row_skipped("all rows", "no valgrind here: apt-get install valgrind")
        return
    bench.build_program(PROGRAM, "-Dtests=true")
    for transport, kind, size, batch, most in ROWS:
        name = f"{kind} {size} bytes over {transport}, {batch} at a time"
        if bench.only and bench.only not in name:
            continue
        count = instructions(bench, transport, kind, size, batch)
        yield report.Row(name=name, unit="instr", sluice=count, reference=most,
                         reference_name="at most" if most else "",
                         ratio=most / count if most else None, floor=1.0 if most else None,
                         spread=None, core_to_core_ns=None)
