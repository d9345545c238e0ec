# SPDX-License-Identifier: Apache-2.0
"""Programs that cannot take turns within a slice: they run one after the other, in rounds."""
import dataclasses
import fnmatch
import statistics
from collections.abc import Callable

from . import report

ATTEMPTS_MAX = 8
MOVED = 1.6  # as in perf/probe.c


@dataclasses.dataclass
class Sides:
    """What is set against what. The two functions give back a figure in the unit of the row."""

    name: str
    unit: str                 # "ns" and "us" are better when they are lower
    floor: float | None
    reference_name: str
    sluice: Callable
    reference: Callable
    note: str | Callable = ""  # or what gives it when all is measured


def wanted(bench, name):
    return not bench.only or fnmatch.fnmatchcase(name, f"*{bench.only}*")


def measure_pair(sides, sluice_first):
    if sluice_first:
        sluice, reference = sides.sluice(), sides.reference()
    else:
        reference, sluice = sides.reference(), sides.sluice()
    ratio = reference / sluice if sides.unit in ("ns", "us") else sluice / reference
    return {"sluice": sluice, "reference": reference, "ratio": ratio}


def measure_round(bench, sides):
    """A few pairs, in which the two sides change places; the median of each figure."""
    pairs = [measure_pair(sides, index % 2 == 0) for index in range(bench.pairs)]
    return {key: statistics.median(pair[key] for pair in pairs) for key in pairs[0]}


def compare(bench, sides):
    """The row of a comparison; a round in which the cores moved is repeated."""
    before = bench.core_to_core_ns()
    rounds = []
    for _ in range(bench.rounds):
        for _ in range(ATTEMPTS_MAX):
            each = measure_round(bench, sides)
            after = each["core_to_core_ns"] = bench.core_to_core_ns()
            moved = max(before, after) > min(before, after) * MOVED
            before = after
            if not moved:
                break
        rounds.append(each)
    note = sides.note() if callable(sides.note) else sides.note
    return report.row_of_rounds(sides.name, sides.unit, rounds, sides.reference_name, sides.floor,
                                note)


def rounds_of(line):
    """A line of a program that compares by itself, turned from columns to rounds."""
    columns = ("sluice", "reference", "ratio", "core_to_core_ns")
    return [dict(zip(columns, values)) for values in zip(*(line[column] for column in columns))]


def rows_of(bench, program, group):
    """The rows of a program that compares by itself."""
    for line in bench.lines(program, group):
        if "skipped" in line:
            yield report.row_skipped(line["name"], line["skipped"])
            continue
        yield report.row_of_rounds(line["name"], line["unit"], rounds_of(line),
                                   line["reference_name"], line["floor"], line.get("note", ""))
