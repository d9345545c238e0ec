# SPDX-License-Identifier: Apache-2.0
"""One pair of binaries, one command line: shared memory on one host, TCP between two, and the
report and `explain` say why."""
import contextlib
import json
import os
import tempfile

import harness
from control import PSK, psk_file
from harness import case, check, equal
from hosts import Host, connect, need_hosts

PORT = 4711
FLAGS = ["--workload", "mix", "--integrity_check", "--size", "16K", "--threads", "2"]


@contextlib.contextmanager
def two_hosts(isolated=False):
    need_hosts()
    with Host(isolated) as first, Host(isolated) as second:
        address, _ = connect(first, second)
        yield first, second, f"{address}:{PORT}"


def explanation(host, remote, *flags, code=0):
    """What `sluice-initiator explain` says, by transport."""
    result = harness.run([*host.command(harness.INITIATOR), "explain", "--remote_segment", remote,
                          *flags, "--json", "-"])
    equal(result.code, code, "exit code", result)
    return {each["transport"]: each for each in json.loads(result.out)["candidates"]}, result


def check_path(host, remote, transport, flags, *clues):
    """A verified run goes by that transport; explain says so, with the clues in its reasons."""
    report = host.report_of("--remote_segment", remote, *flags, *FLAGS)
    equal(report["transport"], transport, "transport", report["result"])
    equal((report["verified"], report["errors_total"]), (True, 0), "verified, errors",
          report["result"])
    candidates, result = explanation(host, remote, *flags)
    chosen = [each["transport"] for each in candidates.values() if each["chosen"]]
    equal(chosen, [transport], "explain has chosen", result)
    for name, clue in clues:
        check(clue in candidates[name]["reason"], f"{name}: no {clue!r} in the reason", result)
    return candidates


@case("the same command goes by shared memory on the target's host and by TCP from another")
def same_command():
    with two_hosts() as (first, second, address), tempfile.TemporaryDirectory() as folder:
        keys = psk_file(folder, guest=PSK)
        for secrets in (["--psk", keys], ["--insecure"]):
            with first.target("--listen", address, *secrets) as target:
                remote = f"{target.name}@{address}"
                check_path(first, remote, "shm", secrets)
                check_path(second, remote, "tcp", secrets, ("shm", "socket"), ("verbs", "RDMA"))
                target.stop()


@case("two containers that share only the socket's folder use shared memory")
def shared_socket():
    with two_hosts(isolated=True) as (first, second, address), \
            tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = os.path.join(folder, "target.sock")
        with first.target("--listen", address, "--insecure", "--socket", path) as target:
            for remote in (f"{target.name}@{path}", f"{target.name}@{address}"):
                check_path(second, remote, "shm", ["--insecure"])
            target.stop()


@case("without the shared socket they use TCP, and are told which flag would mend it")
def hidden_socket():
    with two_hosts(isolated=True) as (first, second, address), \
            tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = os.path.join(folder, "target.sock")
        second.hide(folder)
        with first.target("--listen", address, "--insecure", "--socket", path) as target:
            check_path(second, f"{target.name}@{address}", "tcp", ["--insecure"], ("shm", path))
            target.stop()
        with first.target("--listen", address, "--insecure") as target:
            check_path(second, f"{target.name}@{address}", "tcp", ["--insecure"],
                       ("shm", "--socket"))
            target.stop()


@case("--require of a transport that is not to be had fails, says why, and moves nothing")
def require_fails_closed():
    with two_hosts() as (first, second, address):
        with first.target("--listen", address, "--insecure") as target:
            remote = f"{target.name}@{address}"
            for name in ("shm", "verbs"):
                result = second.initiator("--remote_segment", remote, "--insecure", "--require",
                                          name)
                equal(result.code, 1, "exit code", result)
                check(name in result.err, "does not name the transport", result)
            equal(first.report_of("--remote_segment", remote, "--insecure", "--require", "tcp",
                                  *FLAGS)["transport"], "tcp", "transport on one host")
            stopped = target.stop()
        check(" 1 clients" in stopped.out, "a refused client was let in", stopped)


@case("explain with --require says whether that transport is to be had")
def explain_require():
    with two_hosts() as (first, second, address):
        with first.target("--listen", address, "--insecure") as target:
            remote = f"{target.name}@{address}"
            for name, code in (("shm", 1), ("verbs", 1), ("tcp", 0)):
                candidates, result = explanation(second, remote, "--insecure", "--require", name,
                                                 code=code)
                equal(candidates[name]["chosen"], code == 0, f"{name} is chosen", result)
            target.stop()


@case("TCP without TLS leaves the host only with --insecure, at either end")
def insecure():
    with two_hosts() as (first, second, address):
        result = harness.run([*first.command(harness.TARGET), "--segment", "a=1M", "--listen",
                              address])
        equal(result.code, 1, "exit code of the target", result)
        check("--insecure" in result.err, "no remedy", result)
        with first.target("--listen", address, "--insecure") as target:
            result = second.initiator("--remote_segment", f"{target.name}@{address}")
            equal(result.code, 1, "exit code of the initiator", result)
            check("--insecure" in result.err, "no remedy", result)
            target.stop()


@case("an address where nobody is, and one that nobody knows the way to, are told apart")
def unreachable():
    with two_hosts() as (_, second, address):
        for remote, clue in ((f"a@{address}", "no target listens"), ("a@10.99.0.1:1", "no way"),
                             ("a@nowhere.invalid:1", "nowhere.invalid")):
            result = second.initiator("--remote_segment", remote, "--insecure")
            equal(result.code, 1, "exit code", result)
            check(clue in result.err, f"no {clue!r}", result)


if __name__ == "__main__":
    harness.main()
