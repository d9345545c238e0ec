#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Count the single tests of a meson test run.

usage: count_tests.py LOGBASE      for example build/meson-logs/unit

Reads LOGBASE.json (every program) and LOGBASE.junit.xml (every TAP case of each), prints
"PASSED FAILED SKIPPED" on one line, then a line for each failed and each skipped case, and for each
comment of a program that begins with "note:". A program that failed without a failed case, because
it crashed or ran out of time, is one failure.
"""
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

# What XML 1.0 does not allow, and meson writes nevertheless when a test prints it.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PASSED = {"OK", "EXPECTEDFAIL"}
REASON = re.compile(r"^(?:# skipped: |1\.\.0 # SKIP |ok \d+ - .*# SKIP )(.+)$", re.MULTILINE)


def read_programs(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def read_suites(path):
    """Suite name, which is that of its program, to its cases."""
    with open(path, encoding="utf-8", errors="replace") as file:
        root = ElementTree.fromstring(NOT_XML.sub("?", file.read()).encode())
    return {suite.get("name"): suite.findall("testcase") for suite in root.iter("testsuite")}


def case_result(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def program_result(program):
    if program["result"] == "SKIP":
        return "skipped"
    return "passed" if program["result"] in PASSED else "failed"


def results_of(program, suites):
    """Yield (case, result) of everything that the program reported."""
    name = program["name"]
    cases = suites.get("sluice." + name, [])
    results = [(case.get("name"), case_result(case)) for case in cases]
    overall = program_result(program)
    if not results or (overall == "failed" and "failed" not in [r for _, r in results]):
        results.append((f"{program['result']}, exit {program.get('returncode')}", overall))
    return results


def explanation(program):
    """What a failed program said about it: TAP comments beside its failures, and stderr's end."""
    said = [line for line in program.get("stdout", "").splitlines()
            if line.startswith(("not ok", "#", "Bail out!")) and not line.startswith("# ok")]
    return said[-30:] + program.get("stderr", "").splitlines()[-10:]


def main():
    base = sys.argv[1]
    suites = read_suites(base + ".junit.xml")
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    lines = []
    for program in read_programs(base + ".json"):
        skipped = False
        for case, result in results_of(program, suites):
            counts[result] += 1
            skipped |= result == "skipped"
            if result != "passed":
                lines.append(f"{result}: {program['name']}: {case}")
        lines += [f"{program['name']}: {line[2:]}" for line in program.get("stdout", "").splitlines()
                  if line.startswith("# note: ")]
        if program_result(program) == "failed":
            lines += [f"    {line}" for line in explanation(program)]
        if skipped:
            lines += [f"    {why}" for why in REASON.findall(program.get("stdout", ""))]
    print(counts["passed"], counts["failed"], counts["skipped"])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
