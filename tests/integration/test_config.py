# SPDX-License-Identifier: Apache-2.0
"""Configuration files: precedence, mistakes, and --print-config."""
import os
import tempfile

import harness
from harness import File, case, check, equal, run

IDENTITY = "i" * 63


def print_config(program, *args, code=0, **environment):
    result = run([program, *args, "--print-config"], env={**os.environ, **environment})
    equal(result.code, code, "exit code", result)
    return result


def values(result):
    """What is in force: (section, name, value) of each line, defaults included, in order."""
    found, section = [], None
    for line in result.out.splitlines():
        line = line.split("  ; ")[0]
        if line.startswith("["):
            section = line
        elif " = " in line and not line.startswith(";"):
            name, value = line.lstrip("#").split(" = ", 1)
            found.append((section, name, value))
    return found


def origin(result, line):
    """The comment that says where the line came from."""
    lines = result.out.splitlines()
    check(line in lines, f"no line {line!r}", result)
    return lines[lines.index(line) - 1]


def refused(result, *parts):
    equal(result.code, 2, "exit code", result)
    equal(result.out, "", "stdout", result)
    for part in parts:
        check(part in result.err, f"the message lacks {part!r}", result)


@case("each source wins over the weaker ones, and is named")
def precedence():
    with File("[initiator]\nbatch = 2\ndepth = 3\nthreads = 4\nremote_segment = ram0\n") as file:
        result = print_config(harness.INITIATOR, "--config", file.path, "--threads", 7,
                              SLUICE_INITIATOR_DEPTH="5", SLUICE_INITIATOR_THREADS="6")
        equal(origin(result, "batch = 2"), f"; {file.path}:2", "batch", result)
        equal(origin(result, "depth = 5"), "; SLUICE_INITIATOR_DEPTH", "depth", result)
        equal(origin(result, "threads = 7"), "; command line", "threads", result)
        check("#size = 64K  ; default" in result.out, "the default of size", result)


@case("a list of a stronger source takes the place of a weaker one's")
def lists():
    with File("[target]\nsegment = a=1M\nsegment = b=2M\n") as file:
        def segments(*args, **environment):
            result = print_config(harness.TARGET, "--config", file.path, *args, **environment)
            return [value for _, name, value in values(result) if name == "segment"]
        equal(segments(), ["a=1M", "b=2M"], "file")
        equal(segments(SLUICE_TARGET_SEGMENT="c=1M,d=1M,e=1M"), ["c=1M", "d=1M", "e=1M"],
              "environment")
        equal(segments("--segment", "f=1M", SLUICE_TARGET_SEGMENT="c=1M"), ["f=1M"],
              "command line")


@case("--config, else SLUICE_CONFIG; an empty one is none")
def which_file():
    with File("[target]\nsegment = a=1M\n") as one, File("[target]\nsegment = b=1M\n") as other:
        result = print_config(harness.TARGET, SLUICE_CONFIG=one.path)
        origin(result, "segment = a=1M")
        result = print_config(harness.TARGET, "--config", other.path, SLUICE_CONFIG=one.path)
        origin(result, "segment = b=1M")
        result = print_config(harness.TARGET, "--segment", "c=1M", SLUICE_CONFIG="")
        check("; file: none" in result.out, "a file was read", result)


@case("one file serves both programs, and each reads its own section")
def both_sections():
    with File("[target]\nsegment = ram0=1M\n[initiator]\nremote-segment = ram0\n"
              "integrity-check = true\n") as file:
        origin(print_config(harness.TARGET, "--config", file.path), "segment = ram0=1M")
        origin(print_config(harness.INITIATOR, "--config", file.path), "integrity_check = true")


FILES = (
    ("[taget]\nsegment = a=1M\n", ":1:", "[taget]", "did you mean [target]?"),
    ("[elephants]\n", ":1:", "[elephants]", "[identity NAME]"),
    ("[target\nsegment = a=1M\n", ":1:", "ends in ]"),
    ("segment = a=1M\n", ":1:", "before the first section", "[target]"),
    ("[target]\nsegmnt = a=1M\n", ":2:", '"segmnt"', "did you mean segment?"),
    ("[target]\nzebra = 1\n", ":2:", '"zebra"', "--help"),
    ("# x\n\n[target]\nnode = one\n", ":4: node:", "whole number"),
    ("[target]\nnode = 5000\n", ":2: node:", "-1 to 1023"),
    ("[target]\npage = 2m\n", ":2: page:", "auto, 4K, 2M", "did you mean 2M?"),
    ("[target]\nmlock = yes\n", ":2: mlock:", "true or false"),
    ("[target]\nmlock =\n", ":2: mlock", "needs a value"),
    ("[identity x]\na = read\nmax-sessions = many\n", ":3:", "max-sessions", "number"),
    ("[identity x]\nmax-links = 1\nmax-links = 2\n", ":3:", "set already"),
    ("[identity *]\nmax-links = 1\n", ":2:", "write it under [target]"),
    ("[target]\nnode = 0\nnode = 1\n", ":3:", "set in line 2 already"),
    ("[target]\nthis is text\n", ":2:", "NAME = VALUE"),
    ("[target]\nhelp = true\n", ":2: help:", "on the command line"),
    ("[target]\nconfig = /x\n", ":2: config:", "on the command line"),
    ("[target]\nsocket = /" + "x" * 300 + "\n", ":2:", "longer than 198 bytes"),
    (b"[target]\nsocket = /a\0b\n", ":2:", "NUL"),
    ("[identity]\nram0 = read\n", ":1:", "did you mean [identity NAME]?"),
    ("[identity " + "x" * 64 + "]\nram0 = read\n", ":1:", "no identity", "63"),
    ("[identity alice cooper]\nram0 = read\n", ":1:", "no identity", "without blanks"),
    ("[identity alice]\n[target]\n", ":1:", "alice has no rights", "* = none"),
    ("[identity alice]\n", ":1:", "alice has no rights"),
    ("[identity alice]\nram0 = wriet\n", ":2:", "read,write", "did you mean write?"),
    ("[identity alice]\nram0 = read,none\n", ":2:", "none of"),
    ("[identity alice]\nram 0 = read\n", ":2:", "no segment name"),
    ("[identity a]\nx = read\n[identity b]\nx = read\n[identity a]\nx = none\n", ":6:",
     "x of identity a is granted in line 2 already"),
)


@case("every mistake in a file is named with file and line, and what was meant")
def mistakes():
    for text, *parts in FILES:
        with File(text) as file:
            result = run([harness.TARGET, "--config", file.path, "--segment", "s=1M"])
            refused(result, file.path + parts[0], *parts[1:])


@case("a file that is not there, or is none, is an error")
def no_file():
    result = run([harness.TARGET, "--config", "/nowhere/x.conf", "--segment", "a=1M"])
    refused(result, "/nowhere/x.conf", "No such file")
    refused(run([harness.TARGET, "--segment", "a=1M"],
                env={**os.environ, "SLUICE_CONFIG": "/nowhere/y.conf"}), "/nowhere/y.conf")
    with tempfile.TemporaryDirectory() as folder:
        refused(run([harness.TARGET, "--config", folder, "--segment", "a=1M"]), folder,
                "directory")


@case("a mistake in the environment names the variable; one that looks like it is a warning")
def environment():
    refused(run([harness.TARGET, "--segment", "a=1M"],
                env={**os.environ, "SLUICE_TARGET_NODE": "one"}), "SLUICE_TARGET_NODE:")
    result = print_config(harness.TARGET, "--segment", "a=1M", SLUICE_TARGET_SOKET="/x",
                          SLUICE_TARGET_SERVICE_HOST="10.0.0.1")
    check("SLUICE_TARGET_SOKET" in result.err and "--socket" in result.err, "no warning", result)
    check("SERVICE_HOST" not in result.err, "warns of what is not ours", result)


@case("what --print-config prints is a file that gives the same configuration")
def round_trip():
    text = ("[target]\nsegment = a=1M\nsegment = b=64K@0\nread-only = true\npoll = busy\n"
            "  allow_user = root   ; with a comment\n"
            f"[identity {IDENTITY}]\na = read,write\nb = none\nmax-sessions = 5\n"
            "max-response-bytes = 1M\n[identity *]\n* = read\n"
            "[initiator]\nsize = 4K\nrate = 2.5k\nduration = 0.333\nseed = 0xff\n"
            "workload = mix\nremote_segment = a\nno_such = ignored by the target\n")
    with File(text) as file:
        first = print_config(harness.TARGET, "--config", file.path, "--cores", "0,1",
                             "--json", "a b;c", SLUICE_TARGET_SOCKET="/tmp/x.sock")
        with File(first.out) as printed:
            again = print_config(harness.TARGET, "--config", printed.path)
            equal(values(again), values(first), "configuration", first, again)
            check("; command line" not in again.out, "an origin", again)
        for line in (("a", "read,write"), ("max-sessions", "5"),
                     ("max-response-bytes", "1048576")):
            check((f"[identity {IDENTITY}]", *line) in values(first), f"lacks {line}", first)
        file.write(text.replace("no_such = ignored by the target\n", ""))
        first = print_config(harness.INITIATOR, "--config", file.path, "--warmup", "1e-3",
                             "--use_vram=false")
        with File(first.out) as printed:
            again = print_config(harness.INITIATOR, "--config", printed.path)
            equal(values(again), values(first), "configuration", first, again)
        for line in (("rate", "2500"), ("seed", "255"), ("use_vram", "false")):
            check(("[initiator]", *line) in values(first), f"lacks {line}", first)


RDMA = (("rdma", "true", "false"), ("rdma-device", None, "mlx5_0:2"), ("rdma-gid", "-1", "3"),
        ("rdma-mtu", "auto", "2048"), ("rdma-timeout", "-1", "18"), ("rdma-retries", "-1", "0"),
        ("rdma-traffic-class", "-1", "104"))
RDMA_INITIATOR = (("rdma-queue-pairs", "0", "4"), ("connect", "session", "cm"))


def rdma_in_force(program, options, *args, **environment):
    found = {name: value for _, name, value in values(print_config(program, *args, **environment))}
    return [found.get(name) for name, *_ in options]


@case("the options of RDMA: defaults, and each from a file, the environment and a flag")
def rdma():
    for program, section, options, args in (
            (harness.TARGET, "target", RDMA, ["--segment", "a=1M"]),
            (harness.INITIATOR, "initiator", RDMA + RDMA_INITIATOR, ["--remote_segment", "a"])):
        defaults = [default for _, default, _ in options]
        wanted = [value for *_, value in options]
        equal(rdma_in_force(program, options, *args), defaults, "defaults")
        flags = [f"--{name}={value}" for name, _, value in options]
        equal(rdma_in_force(program, options, *args, *flags), wanted, "flags")
        variables = {f"SLUICE_{section}_{name}".upper().replace("-", "_"): value
                     for name, _, value in options}
        equal(rdma_in_force(program, options, *args, **variables), wanted, "environment")
        with File(f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, _, value in options)
                  ) as file:
            equal(rdma_in_force(program, options, *args, "--config", file.path), wanted, "file")
            printed = print_config(program, *args, "--config", file.path)
            file.write(printed.out)
            equal(values(print_config(program, "--config", file.path)), values(printed),
                  "what was printed")
            equal(rdma_in_force(program, options, "--config", file.path, "--rdma",
                                "--rdma-gid", "-1")[:3:2], ["true", "-1"], "flags over a file")


@case("what no file can hold is not printed as one")
def cannot_hold():
    for value in ("a ;b", " a", "a\nb", "x" * 200):
        result = print_config(harness.TARGET, "--segment", "a=1M", "--json", value, code=1)
        check("--json" in result.err, "the option is not named", result)


@case("a line as long as is allowed is read, and printed as one that is read again")
def longest():
    path = "/" + "x" * (198 - len("json = /"))
    with File(f"[target]\nsegment = a=1M\njson = {path}\n") as file:
        first = print_config(harness.TARGET, "--config", file.path)
        check(f"json = {path}" in first.out, "the value", first)
        file.write(first.out)
        equal(values(print_config(harness.TARGET, "--config", file.path)), values(first), "again")
        file.write(f"[target]\nsegment = a=1M\njson = {path}x\n")
        refused(run([harness.TARGET, "--config", file.path]), ":3:", "longer than 198 bytes")


@case("--print-config needs nothing else, and prints contradictions too, with what is wrong")
def incomplete():
    for program, line in ((harness.TARGET, "#size = 256M  ; default"),
                          (harness.INITIATOR, "#size = 64K  ; default")):
        result = print_config(program)
        check(line in result.out, "the options", result)
        equal(result.err, "", "stderr", result)
    result = print_config(harness.TARGET, "--size", "1M", code=2)
    check("--local_segment" in result.err, "the reason", result)
    check("size = 1M" in result.out, "the options", result)


@case("a target serves what its file says")
def serves():
    name = harness.unique()
    with File(f"[target]\nlocal_segment = {name}\nsize = 1M\nread-only = true\n") as file:
        with harness.Process(harness.TARGET, "--config", file.path) as target:
            target.wait_for(rf"^ready: .*segments={name}$")
            check("read only" in target.texts["out"], "the segment can be written", target)
            target.signal(15)
            equal(target.finish().code, 0, "exit code", target)


if __name__ == "__main__":
    harness.main()
