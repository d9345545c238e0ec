# SPDX-License-Identifier: Apache-2.0
"""Hosts on one machine: network namespaces joined by a cable, if wanted with mounts and processes
of their own, as containers have them.

A host lives as long as its holder, a process that sleeps; whatever runs in it, its addresses and
its mounts vanish with the holder, and the holder dies with the test.
"""
import contextlib
import os
import shutil
import signal
import subprocess

import harness
from harness import Process, Skip, Target

TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "ip": "iproute2"}
PRIVATE_FOLDERS = ("/run", "/dev/shm")


def need_hosts():
    """Skip the case where namespaces are not to be had."""
    if os.geteuid() != 0:
        raise Skip("only root can make network namespaces")
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            raise Skip(f"no {tool}: apt install {package}")
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link", "add",
                            "probe", "type", "veth"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise Skip(f"no namespaces here: {tried.stderr.strip()}")


class Inside:
    """Mixed into Process: what was started by nsenter is its child where the host has processes of
    its own, and nsenter hands no signals on."""

    def signal(self, number):
        os.kill(self.inner_pid(), number)

    def inner_pid(self):
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            children = file.read().split()
        return int(children[0]) if children else self.pid


class ProcessInside(Inside, Process):
    pass


class TargetInside(Inside, Target):
    pass


class Host:
    """One host. isolated: with mounts and processes of its own."""

    def __init__(self, isolated=False):
        self.isolated = isolated
        command = ["unshare", "--net"]
        command += ["--mount", "--pid", "--fork", "--mount-proc"] if isolated else []
        self.holder = subprocess.Popen([*command, "--kill-child", "sh", "-c",
                                        "echo up; exec sleep infinity"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
        harness.check(self.holder.stdout.readline() == b"up\n", "the host did not start")
        self.pid = self.holder_pid()
        self.run("ip", "link", "set", "lo", "up")
        for folder in PRIVATE_FOLDERS if isolated else ():
            self.run("mount", "-t", "tmpfs", "none", folder)

    def holder_pid(self):
        """The process whose namespaces are the host's."""
        with open(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children") as file:
            children = file.read().split()
        return int(children[0]) if children else self.holder.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.holder.wait()
        self.holder.stdout.close()

    def command(self, *args):
        """The command line that runs args in this host."""
        flags = ["--net", "--mount", "--pid"] if self.isolated else ["--net"]
        return ["nsenter", "--target", self.pid, *flags, "--", *args]

    def run(self, *args):
        """Run a command that must succeed."""
        result = harness.run(self.command(*args))
        harness.equal(result.code, 0, "exit code", result)
        return result

    def hide(self, folder):
        """Show an empty folder instead, in this host only."""
        self.run("mount", "-t", "tmpfs", "none", folder)

    def process(self, *args, **options):
        return ProcessInside(*self.command(*args), **options)

    def target(self, *args, **options):
        return TargetInside(*args, prefix=self.command(), **options)

    def initiator(self, *args, **options):
        """Run an initiator to its end."""
        return harness.initiator(*args, prefix=self.command(), **options)

    def report_of(self, *args, **options):
        """Run an initiator and return its report."""
        return harness.report_of(*args, prefix=self.command(), **options)


def die_with_parent():
    """A preexec_fn: the test may be killed, and must leave no host behind."""
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def connect(first, second, number=1):
    """Lay a cable between two hosts; returns their addresses."""
    addresses = [f"10.231.{number}.1", f"10.231.{number}.2"]
    name = f"veth{number}"
    result = harness.run(["nsenter", "--target", first.pid, "--net", "--", "ip", "link", "add",
                          name, "type", "veth", "peer", "name", name, "netns", second.pid])
    harness.equal(result.code, 0, "exit code", result)
    for host, address in zip((first, second), addresses):
        host.run("ip", "address", "add", f"{address}/24", "dev", name)
        host.run("ip", "link", "set", name, "up")
    return addresses
