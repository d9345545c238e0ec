#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Count the single tests of a meson test run.

usage: count_tests.py LOGBASE      for example build/meson-logs/unit

Reads LOGBASE.junit.xml (every TAP case) and LOGBASE.json (every program), and prints
"PASSED FAILED SKIPPED" on one line, then a line for each failed and each skipped case. A program
that failed without a failed case, because it crashed or ran out of time, is one failure.
"""
import json
import sys
import xml.etree.ElementTree as ElementTree

GOOD = {"OK", "EXPECTEDFAIL"}


def case_result(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def read_cases(path):
    """Yield (program, case, result) of every case of every TAP program."""
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            yield case.get("classname", ""), case.get("name", ""), case_result(case)


def read_programs(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def skip_reasons(program):
    prefix = "# skipped: "
    lines = program.get("stdout", "").splitlines()
    return [line[len(prefix):] for line in lines if line.startswith(prefix)]


def main():
    cases = list(read_cases(sys.argv[1] + ".junit.xml"))
    programs = read_programs(sys.argv[1] + ".json")
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    lines = []
    for program, case, result in cases:
        counts[result] += 1
        if result != "passed":
            lines.append(f"{result}: {program}: {case}")
    for program in programs:
        name = program["name"].split(" / ")[-1]
        failed_cases = any(
            result == "failed" and (owner.endswith("." + name) or case == name)
            for owner, case, result in cases)
        if program["result"] not in GOOD | {"SKIP"} and not failed_cases:
            counts["failed"] += 1
            lines.append(f"failed: {name}: {program['result']} (exit {program['returncode']})")
        lines += [f"  because: {name}: {reason}" for reason in skip_reasons(program)]
    print(counts["passed"], counts["failed"], counts["skipped"])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
