# SPDX-License-Identifier: Apache-2.0
"""docs/security.md names a test for each of its lines, or says that there is none."""
import ast
import os
import re

import harness
from harness import case, check

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(os.path.dirname(TESTS), "docs", "security.md")
NAMED = re.compile(r"`(\w+)/(test_\w+)` ([^;|()`]*[^;|()` ])")


def goals(path):
    """Goals of the cases in a Python test; what is computed in them stands for anything."""
    with open(path) as file:
        tree = ast.parse(file.read())
    for function in tree.body:
        for call in getattr(function, "decorator_list", ()):
            if isinstance(call, ast.Call) and call.func.id in ("case", "attack"):
                yield "".join(each.value if isinstance(each, ast.Constant) else "\0"
                              for each in getattr(call.args[0], "values", [call.args[0]]))


def exists(suite, program, name):
    path = os.path.join(TESTS, suite, program)
    if os.path.exists(f"{path}.py"):
        return any(name in goal for goal in goals(f"{path}.py"))
    if not os.path.exists(f"{path}.c"):
        return False
    with open(f"{path}.c") as file:
        return re.search(rf"^static void {re.escape(name)}\(void \*\*state\)$", file.read(),
                         re.MULTILINE) is not None


def page():
    with open(PAGE) as file:
        return file.read()


@case("every test that docs/security.md names exists")
def named_tests():
    named = NAMED.findall(page())
    check(len(named) > 50, f"only {len(named)} tests are found in the page")
    missing = [" ".join(each) for each in named if not exists(*each)]
    check(not missing, "no such test:\n" + "\n".join(missing))


@case("every line of docs/security.md has its test, or is marked as untested")
def every_line():
    bare, shown = [], False
    for line in page().splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            if line.endswith("| shown by |"):
                shown = True
            elif shown and not NAMED.search(line.split("|")[-2]) and "*untested*" not in line:
                bare.append(line)
        else:
            shown = shown and line.startswith("|---")
    check(not bare, "lines without a test:\n" + "\n".join(bare))


if __name__ == "__main__":
    harness.main()
