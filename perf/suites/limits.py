# SPDX-License-Identifier: Apache-2.0
"""The machine's own limits: nothing of Sluice is in them."""
from harness import report

HUGEPAGES = 1024  # two buffers of 1 GiB

GROUPS = ("cores", "copy-2M", "copy-4K")


def rows(bench):
    for group in GROUPS:
        for line in bench.lines("limits", group):
            yield report.row_of_limit(line["name"], line["unit"], line["reference"],
                                      line["reference_name"], line["core_to_core_ns"],
                                      line.get("note", ""))
