# SPDX-License-Identifier: Apache-2.0
"""Rows, their statistics, the table and the JSON."""
import dataclasses
import json
import statistics
import sys

NAME_WIDTH = 44


@dataclasses.dataclass
class Row:
    """One line of the table. A limit of the machine has no sluice, ratio and floor."""

    name: str
    unit: str
    sluice: float | None
    reference: float | None
    reference_name: str
    ratio: float | None
    floor: float | None
    spread: float | None
    core_to_core_ns: float | None
    note: str = ""
    skipped: str = ""

    @property
    def short(self):
        return self.ratio is not None and self.floor is not None and self.ratio < self.floor


def spread_of(values):
    """Distance of the extremes, as a part of the median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def row_of_rounds(name, unit, rounds, reference_name, floor, note=""):
    """The row of a comparison.

    rounds: dictionaries with sluice, reference, ratio and, where it was probed, core_to_core_ns
    """
    probes = [each["core_to_core_ns"] for each in rounds if "core_to_core_ns" in each]
    ratios = [each["ratio"] for each in rounds]
    return Row(name=name, unit=unit, reference_name=reference_name, floor=floor, note=note,
               sluice=statistics.median(each["sluice"] for each in rounds),
               reference=statistics.median(each["reference"] for each in rounds),
               ratio=statistics.median(ratios), spread=spread_of(ratios),
               core_to_core_ns=statistics.median(probes) if probes else None)


def row_of_limit(name, unit, values, reference_name, core_to_core_ns, note=""):
    """The row of a figure of the machine itself."""
    return Row(name=name, unit=unit, sluice=None, reference=statistics.median(values),
               reference_name=reference_name, ratio=None, floor=None, spread=spread_of(values),
               core_to_core_ns=core_to_core_ns, note=note)


def row_skipped(name, reason):
    """A row that could not be measured; it counts as neither held nor short."""
    return Row(name=name, unit="", sluice=None, reference=None, reference_name="", ratio=None,
               floor=None, spread=None, core_to_core_ns=None, skipped=reason)


def write_json(path, rows):
    """Write the rows that were measured, as a list; "-" is stdout."""
    rows = [dataclasses.asdict(row) for row in rows if not row.skipped]
    for row in rows:
        del row["skipped"]
        if not row["note"]:
            del row["note"]
    text = json.dumps(rows, indent=1) + "\n"
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def figure(value, digits=1):
    return "-" if value is None else f"{value:.{digits}f}"


class Table:
    """Prints each row as soon as it is measured."""

    def __init__(self, stream):
        self.stream = stream

    def say(self, text):
        print(f"# {text}", file=self.stream, flush=True)

    def head(self, machine):
        for line in machine:
            self.say(line)
        print(f"{'':{NAME_WIDTH}} {'Sluice':>9} {'reference':>9} {'unit':5} {'ratio':>6} "
              f"{'floor':>5} {'spread':>6} {'core-core':>9}   reference", file=self.stream,
              flush=True)

    def add(self, row):
        if row.skipped:
            print(f"{row.name:{NAME_WIDTH}} skipped: {row.skipped}", file=self.stream, flush=True)
            return row
        spread = "-" if row.spread is None else f"{row.spread * 100:.0f}%"
        core = "-" if row.core_to_core_ns is None else f"{row.core_to_core_ns:.0f} ns"
        line = (f"{row.name:{NAME_WIDTH}} {figure(row.sluice):>9} {figure(row.reference):>9} "
                f"{row.unit:5} {figure(row.ratio, 3):>6} {figure(row.floor, 2):>5} {spread:>6} "
                f"{core:>9} {'<' if row.short else ' '} {row.reference_name}")
        print(f"{line}; {row.note}" if row.note else line, file=self.stream, flush=True)
        return row

    def foot(self, rows):
        """Print the verdict; give back how many rows fall short."""
        held = sum(row.floor is not None and not row.short for row in rows)
        short = sum(row.short for row in rows)
        skipped = sum(bool(row.skipped) for row in rows)
        limits = len(rows) - held - short - skipped
        parts = [f"{held} rows hold their floor, {short} fall short (marked <)"]
        parts += [f"{limits} limits of the machine"] if limits else []
        parts += [f"{skipped} skipped"] if skipped else []
        self.say(", ".join(parts))
        return short
