# SPDX-License-Identifier: Apache-2.0
"""A scenario: a shell file that declares guests and holds a function for each.

The declarations are read by a shell on the host, with an empty environment; the functions run in
the guests only. guest/defaults holds what a scenario leaves out.
"""
import os
import re
import subprocess
from dataclasses import dataclass, field

from . import Wrong

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCENARIOS = os.path.join(FOLDER, "scenarios")
READER = os.path.join(FOLDER, "guest", "declarations")
NAME = re.compile(r"[a-z][a-z0-9_]*$")
ASSIGNMENT = re.compile(r"([a-z][a-z0-9_]*)=(.*)$")
READ_SECONDS = 60
MAX_GUESTS, MAX_CPUS, MAX_NODES, MAX_NICS = 2, 16, 8, 4
MIN_MEMORY_MIB, MAX_MEMORY_MIB = 256, 65536
MIN_MTU, MAX_MTU = 576, 9000
MAX_SECONDS = 24 * 3600


@dataclass
class Scenario:
    """What was declared, checked. Sizes are per guest."""
    path: str
    goal: str
    guests: list
    memory_mib: int
    cpus: int
    nodes: int
    nics: int
    nic_nodes: list
    mtu: int
    hugepages: list
    rdma: bool
    needs: dict
    builds: list
    timeout_s: int
    overrides: dict = field(default_factory=dict)

    @property
    def name(self):
        return os.path.basename(self.path)


def names():
    return sorted(name for name in os.listdir(SCENARIOS) if NAME.match(name.replace("-", "_")))


def find(name):
    """A name is one of scenarios/; with a slash in it, it is a path."""
    path = os.path.abspath(name) if "/" in name else os.path.join(SCENARIOS, name)
    if not os.path.isfile(path):
        raise Wrong(f"no scenario {name}; there are {', '.join(names())}, or a path with a slash")
    return path


def goal_of(path):
    """The first comment after the licence."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            text = line.strip("# \n")
            if line.startswith("#") and text and not text.startswith(("SPDX-", "shellcheck ", "!")):
                return text
    raise Wrong(f"{path}: a scenario begins with a comment that says its goal")


def read(name, assignments):
    """Read a scenario, with NAME=VALUE arguments in place of what it declares."""
    path = find(name)
    overrides = _overrides(assignments)
    values = _declarations(path, overrides)
    functions = set(values.pop("functions").split())
    scenario = _checked(path, values)
    scenario.overrides = overrides
    for guest in scenario.guests:
        if f"on_{guest}" not in functions:
            raise Wrong(f"{path}: guest {guest} has no function on_{guest}")
    return scenario


def _overrides(assignments):
    overrides = {}
    for text in assignments:
        match = ASSIGNMENT.match(text)
        if not match or "\n" in text:
            raise Wrong(f"not of the form NAME=VALUE: {text!r}")
        overrides[match.group(1)] = match.group(2)
    return overrides


def _declarations(path, overrides):
    words = [f"{name}={value}" for name, value in overrides.items()]
    try:
        done = subprocess.run(["bash", "--norc", READER, path, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=READ_SECONDS, check=False,
                              env={"PATH": "/usr/bin:/bin"})
    except subprocess.TimeoutExpired:
        raise Wrong(f"{path}: reading it took more than {READ_SECONDS} s: outside functions there "
                    "may only be assignments") from None
    if done.returncode != 0:
        raise Wrong(done.stderr.decode(errors="replace").strip() or f"{path}: not readable")
    return dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item)


def _checked(path, values):
    def number(name, least, most):
        if not re.fullmatch(r"\d{1,9}", values[name]) or not least <= int(values[name]) <= most:
            raise Wrong(f"{path}: {name}={values[name]}: a number from {least} to {most} is wanted")
        return int(values[name])

    def numbers(name, count, most):
        words = values[name].split()
        if len(words) > count or any(not re.fullmatch(r"\d{1,9}", word) or int(word) > most
                                     for word in words):
            raise Wrong(f"{path}: {name}={values[name]}: at most {count} numbers from 0 to {most} "
                        "are wanted")
        return [int(word) for word in words]

    nodes = number("nodes", 1, MAX_NODES)
    nics = number("nics", 0, MAX_NICS)
    memory = number("memory", MIN_MEMORY_MIB, MAX_MEMORY_MIB)
    cpus = number("cpus", 1, MAX_CPUS)
    if cpus % nodes or memory % nodes:
        raise Wrong(f"{path}: cpus={cpus} and memory={memory} must be multiples of nodes={nodes}")
    nic_nodes = numbers("nic_nodes", nics, nodes - 1) or [rail % nodes for rail in range(nics)]
    if len(nic_nodes) != nics:
        raise Wrong(f"{path}: nic_nodes={values['nic_nodes']}: nics={nics} nodes are wanted")
    hugepages = numbers("hugepages", nodes, memory // nodes // 2)
    if sum(hugepages) * 2 > memory * 3 // 4:
        raise Wrong(f"{path}: hugepages={values['hugepages']} leave less than a quarter of "
                    f"memory={memory} MiB: raise memory or take fewer pages of 2 MiB")
    return Scenario(path=path, goal=goal_of(path), guests=_guests(path, values["guests"]),
                    memory_mib=memory, cpus=cpus, nodes=nodes, nics=nics, nic_nodes=nic_nodes,
                    mtu=number("mtu", MIN_MTU, MAX_MTU), hugepages=hugepages,
                    rdma=_switch(path, values), needs=_needs(path, values["needs"]),
                    builds=values["builds"].split(), timeout_s=number("timeout", 1, MAX_SECONDS))


def _guests(path, text):
    guests = text.split()
    if not 1 <= len(guests) <= MAX_GUESTS or len(set(guests)) != len(guests):
        raise Wrong(f"{path}: guests={text}: one to {MAX_GUESTS} different names are wanted")
    for guest in guests:
        if not NAME.match(guest):
            raise Wrong(f"{path}: guest {guest}: a name has small letters, digits and _")
    return guests


def _switch(path, values):
    if values["rdma"] not in ("yes", "no"):
        raise Wrong(f"{path}: rdma={values['rdma']}: yes or no is wanted")
    return values["rdma"] == "yes" and values["nics"] != "0"


def _needs(path, text):
    needs = {}
    for word in text.split():
        command, colon, package = word.partition(":")
        if not (command and colon and package):
            raise Wrong(f"{path}: needs={word}: COMMAND:PACKAGE is wanted")
        needs[command] = package
    return needs
