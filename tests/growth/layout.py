# SPDX-License-Identifier: Apache-2.0
"""What a compiled program knows of the public headers: where fields are, what constants are, how
functions are called; and what another set of headers has otherwise.

The compiler is asked, not guessed: a program that prints all of it is made from the one set and
compiled against either, with the function types of the first declared beside the other's.
"""
import glob
import os
import re
import subprocess
import tempfile

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
STRUCT = re.compile(r"^struct (slu_\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
ENUM = re.compile(r"^enum slu_\w+ \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
DEFINE = re.compile(r"^#define (SLU_\w+)[ \t]+([^\n\"]+)$", re.MULTILINE)
FUNCTION = re.compile(r"^SLU_API [^;]+;", re.MULTILINE)
CALLBACK = re.compile(r"^typedef [^;]+\(\*slu_\w+\)\([^;]+\);", re.MULTILINE)
NAME = re.compile(r"(\w+)\s*(?:\[[^\]]*\])?$")

# Bounds and counts may rise; what depends on them has a layout.
MAY_CHANGE = re.compile(r"^SLU_(API|VERSION_\w+|\w+_(MAX|MIN|MAX_US|COUNT))$")


def read_headers(folder):
    text = ""
    for path in sorted(glob.glob(os.path.join(folder, "sluice", "*.h"))):
        with open(path, encoding="utf-8") as file:
            text += file.read() + "\n"
    return COMMENT.sub(" ", text)


def fields_of(body, prefix=""):
    """Names of fields as offsetof() takes them, those of inner structs and unions included."""
    fields, start, depth = [], 0, 0
    for i, char in enumerate(body):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char != ";" or depth > 0:
            continue
        declaration, start = body[start:i].strip(), i + 1
        assert ":" not in declaration or "{" in declaration, f"a bit field: {declaration}"
        if declaration.endswith("}"):  # without a name
            fields += fields_of(declaration[declaration.index("{") + 1:-1], prefix)
            continue
        assert "," not in declaration.split("}")[-1], f"two fields in one: {declaration}"
        name = NAME.search(declaration)[1]
        if "{" in declaration:
            inner = declaration[declaration.index("{") + 1:declaration.rindex("}")]
            fields += fields_of(inner, f"{prefix}{name}.")
        fields.append(prefix + name)
    return fields


class Interface:
    def __init__(self, folder):
        text = read_headers(folder)
        self.structs = {name: fields_of(body) for name, body in STRUCT.findall(text)}
        self.constants = [item.split("=")[0].strip()
                          for body in ENUM.findall(text) for item in body.split(",")]
        self.constants += [name for name, _ in DEFINE.findall(text)]
        self.constants = [name for name in self.constants if name and not MAY_CHANGE.match(name)]
        self.functions = FUNCTION.findall(text)
        self.callbacks = CALLBACK.findall(text)

    def function_names(self):
        return {re.search(r"(slu_\w+)\(", function)[1] for function in self.functions}

    def grows(self, struct):
        return self.structs[struct][0] == "size"

    def program(self):
        lines = ["#include <sluice/sluice.h>", "#include <stdio.h>"]
        lines += self.callbacks + self.functions + ["int main(void)", "{"]
        for struct, fields in self.structs.items():
            lines.append(f'printf("{struct} %zu\\n", sizeof(struct {struct}));')
            lines += [f'printf("{struct}.{field} %zu %zu\\n", offsetof(struct {struct}, {field}), '
                      f"sizeof(((struct {struct} *)0)->{field}));"
                      for field in fields if not field.startswith("reserved")]
        lines += [f'printf("{name} %lld\\n", (long long)({name}));' for name in self.constants]
        return "\n".join(lines + ["return 0;", "}", ""])


def compile_against(folder, text, *flags):
    """The finished compiler, and what the program printed if there is one."""
    with tempfile.TemporaryDirectory() as scratch:
        program = os.path.join(scratch, "program")
        compiler = subprocess.run(
            [*os.environ["SLUICE_CC"].split(), "-std=c11", "-I", folder, *flags, "-x", "c", "-",
             "-o", program],
            input=text, text=True, capture_output=True, check=False)
        if compiler.returncode:
            return compiler, ""
        return compiler, subprocess.run([program], text=True, capture_output=True, check=True).stdout


def table(printed):
    return {line.split()[0]: [int(word) for word in line.split()[1:]]
            for line in printed.splitlines()}


def differences(old_folder, new_folder):
    """What a program compiled against the old headers would have wrong, a line each."""
    old = Interface(old_folder)
    text = old.program()
    compiler, printed = compile_against(old_folder, text)
    assert not compiler.returncode, compiler.stderr
    expected = table(printed)
    compiler, printed = compile_against(new_folder, text)
    if compiler.returncode:
        return [line for line in compiler.stderr.splitlines() if "error:" in line]
    found, wrong = table(printed), []
    for name, values in expected.items():
        grown = name in old.structs and old.grows(name) and found[name] > values
        if found[name] != values and not grown:
            wrong.append(f"{name}: was {values}, is {found[name]}")
    return wrong


def holes(folder):
    """Padding that the compiler would put in, a line each."""
    compiler, _ = compile_against(folder, "#include <sluice/sluice.h>\nint main(void) { return 0; }",
                                  "-Wpadded")
    return [line for line in compiler.stderr.splitlines() if "warning:" in line]
