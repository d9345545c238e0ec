# SPDX-License-Identifier: Apache-2.0
"""Today's headers have all of release 1.0 (include/) where it was, and only additions beside it."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))
sys.path.insert(0, HERE)

import harness  # noqa: E402
from harness import case, check, equal  # noqa: E402
import layout  # noqa: E402

FROZEN = os.path.join(HERE, "include")
TODAY = os.path.join(HERE, "..", "..", "include")
REMEDY = "before 1.0 is released: tests/growth/freeze; afterwards: put it back, and add instead"

# (what is done to a header, where, what is found; "" = nothing)
CHANGES = (
    ("queue.h", r"(\tuint32_t depth;)(.*\n)(\tint32_t poller;)", r"\3\2\1", "slu_queue_options.depth"),
    ("queue.h", r"\tuint32_t depth;", "\tuint64_t depth;", "slu_queue_options.depth"),
    ("queue.h", r"\tuint32_t timeout_us; .*\n", "", "timeout_us"),
    ("memory.h", r"(struct slu_region_options \{\n\tsize_t size;\n)", r"\1\tuint64_t new;\n",
     "slu_region_options.page"),
    ("segment.h", r"(struct slu_notification \{)", r"\1\n\tuint64_t new;", "slu_notification"),
    ("segment.h", r"(struct slu_notification \{[^}]*)\}", r"\1\tuint64_t new;\n}", "slu_notification"),
    ("security.h", r"(struct slu_tls_options \{[^}]*)\}", r"\1\tuint64_t new;\n}", "slu_tls_options"),
    ("memory.h", r"(enum slu_page \{)", r"\1\n\tSLU_PAGE_NEW,", "SLU_PAGE_ORDINARY"),
    ("queue.h", r"(#define SLU_MAY_LAND) 0x80", r"\1 0x40", "SLU_MAY_LAND"),
    ("queue.h", r"(slu_reap\([^;]*) uint32_t n", r"\1 uint64_t n", "slu_reap"),
    ("queue.h", r"(slu_reap\([^;]*) uint32_t n", r"\1 uint32_t n, int flags", "slu_reap"),
    ("error.h", r"(\*slu_log_fn\)\(void \*arg)", r"\1, int more", "slu_log_fn"),
    ("queue.h", r"(struct slu_queue_options \{[^}]*)\}", r"\1\tuint64_t new;\n}", ""),
    ("security.h", r"\tSLU_LIMIT_COUNT,", "\tSLU_LIMIT_NEW,\n\tSLU_LIMIT_COUNT,", ""),
    ("memory.h", r"(\tSLU_PAGE_2M),", r"\1,\n\tSLU_PAGE_1G,", ""),
    ("queue.h", r"(struct slu_queue_options \{[^}]*)uint8_t reserved\[4\];", r"\1uint32_t new;", ""),
    ("queue.h", r"\Z", "SLU_API int slu_queue_new(struct slu_queue *queue);\n", ""),
)


class Changed:
    """A copy of release 1.0 in which one thing was changed."""

    def __init__(self, header, pattern, replacement):
        self.folder = tempfile.TemporaryDirectory()
        shutil.copytree(FROZEN, self.folder.name, dirs_exist_ok=True)
        path = os.path.join(self.folder.name, "sluice", header)
        with open(path, encoding="utf-8") as file:
            text, count = re.subn(pattern, replacement, file.read(), count=1)
        equal(count, 1, f"places of {pattern} in {header}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def __enter__(self):
        return self.folder.name

    def __exit__(self, *error):
        self.folder.cleanup()


@case("what a program of release 1.0 knows is as it was")
def nothing_has_moved():
    wrong = layout.differences(FROZEN, TODAY)
    check(not wrong, "\n".join([*wrong, REMEDY]))


@case("each change that breaks such a program is found, and no addition is taken for one")
def changes_are_found():
    for header, pattern, replacement, found in CHANGES:
        with Changed(header, pattern, replacement) as folder:
            wrong = layout.differences(FROZEN, folder)
        if found:
            check(any(found in line for line in wrong), f"not found: {pattern} in {header}", wrong)
        else:
            check(not wrong, f"no harm: {pattern} in {header}", wrong)


@case("all that such a program can touch is looked at")
def all_is_looked_at():
    interface = layout.Interface(FROZEN)
    text = layout.read_headers(FROZEN)
    equal(set(interface.structs), set(re.findall(r"struct (slu_\w+) \{", text)), "structs")
    equal(len(interface.functions), len(re.findall(r"^SLU_API\b", text, re.MULTILINE)), "functions")
    equal(len(interface.callbacks), text.count("typedef"), "callbacks")
    check("limits" in interface.structs["slu_engine_options"], "a field that is an array")


@case("inner structs and unions have their fields looked at")
def inner_fields():
    body = "size_t size;\nunion {\nint a;\nstruct { int b; char c[4]; } in;\n};\nvoid *d;\n"
    equal(layout.fields_of(body), ["size", "a", "in.b", "in.c", "in", "d"], "fields")


@case("no struct has a hole, where a later field would find garbage")
def no_holes():
    equal(layout.holes(TODAY), [], "holes")
    with Changed("queue.h", r"(struct slu_queue_options \{[^}]*)\}", r"\1\tuint8_t new;\n}") as folder:
        check(layout.holes(folder), "a hole that was made is not found")


def headers_in(folder):
    return {name for name in os.listdir(os.path.join(folder, "sluice")) if name.endswith(".h")}


@case("the grown library is built of all public headers, and each sized struct has grown there")
def all_has_grown():
    grown = os.environ["SLUICE_GROWN"]
    equal(headers_in(grown), headers_in(TODAY), "grown/sluice/meson.build lists")
    today = layout.Interface(TODAY)
    for struct, fields in layout.Interface(grown).structs.items():
        equal(fields, today.structs[struct] + ["grown"] * today.grows(struct), struct)


@case("each function carries the release since which it is there")
def symbol_versions():
    listed = subprocess.run(["nm", "-D", "--defined-only", os.environ["SLUICE_LIBRARY"]], text=True,
                            capture_output=True, check=True).stdout
    versions = dict(re.findall(r" T (slu_\w+)@@(\S+)$", listed, re.MULTILINE))
    frozen = layout.Interface(FROZEN).function_names()
    first = {name for name, version in versions.items() if version == "SLUICE_1.0"}
    equal(set(versions), layout.Interface(TODAY).function_names(), "functions with a version")
    equal(first, frozen, "functions of SLUICE_1.0; a later one is named in lib/sluice.map; " + REMEDY)


if __name__ == "__main__":
    harness.main()
