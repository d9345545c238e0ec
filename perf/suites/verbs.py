# SPDX-License-Identifier: Apache-2.0
"""Sluice's verbs path beside perftest, in a virtual machine of tests/lab with a Soft-RoCE device."""
import json
import os
import subprocess

from harness import programs, report

HUGEPAGES = 0  # of this host: the guest has its own

LAB = os.path.join(programs.ROOT, "tests", "lab", "run")
SCENARIO = os.path.join(programs.ROOT, "perf", "lab", "verbs")
SECONDS, SECONDS_QUICK = 3, 0.7
SKIPPED = 77


def lab_command(bench):
    quick = bench.pairs == programs.PAIRS_QUICK
    return [LAB, SCENARIO, "--build", os.path.dirname(bench.folder), f"rounds={bench.rounds}",
            f"seconds={SECONDS_QUICK if quick else SECONDS}", f"only={bench.only or ''}"]


def row_of(line):
    rounds = [{"sluice": sluice, "reference": reference, "ratio": ratio}
              for sluice, reference, ratio in zip(line["sluice"], line["reference"], line["ratio"])]
    return report.row_of_rounds(line["name"], line["unit"], rounds, line["reference_name"],
                                line["floor"], line["note"])


def rows(bench):
    """What the guest prints: rows in lines of JSON; the rest says what went wrong."""
    said = []
    bench.build_apps()
    with subprocess.Popen(lab_command(bench), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as lab:
        try:
            for line in lab.stdout:
                text = line.partition(" | ")[2]
                if text.startswith("{"):
                    yield row_of(json.loads(text))
                else:
                    said.append(line)
            status = lab.wait(programs.PROGRAM_TIMEOUT_S)
        finally:
            lab.terminate()  # its guests end with it
    if status == SKIPPED:
        yield report.row_skipped("all rows", said[-1].rpartition("skipped: ")[2].strip())
    elif status != 0:
        raise programs.Failure(f"{' '.join(lab_command(bench))}:\n{''.join(said[-20:])}")
