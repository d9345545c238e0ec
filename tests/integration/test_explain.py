# SPDX-License-Identifier: Apache-2.0
"""explain, and what the initiator's doctor says of a target."""
import fcntl
import json
import os
import pty
import struct
import subprocess
import termios

import harness
from harness import Target, case, check, equal, run, unique


FOLDER = "/sys/class/infiniband"
RDMA = os.listdir(FOLDER) if os.path.isdir(FOLDER) else []


def explain(*args, code=0):
    result = run([harness.INITIATOR, "explain", "--json", "-", *args])
    equal(result.code, code, "exit code", result)
    report = json.loads(result.out)
    equal(report["schema"], "sluice-explain/1", "schema", result)
    report["result"] = result
    report["by"] = {way["transport"]: way for way in report["candidates"]}
    return report


def reasoned(report):
    """What is true of every explanation."""
    result = report["result"]
    equal(set(report["by"]), {"shm", "verbs", "tcp"}, "candidates", result)
    for way in report["candidates"]:
        check(len(way["reason"]) > 10, "a candidate without a reason", result)
        equal(way["verdict"], "chosen" if way["chosen"] else
              "possible" if way["usable"] else "not possible", "verdict", result)
        check((way["measured"] is not None) == way["usable"], "measured what cannot be", result)
        if way["measured"]:
            check(way["measured"]["latency_ns"] > 0, "latency", result)
            check(way["measured"]["bytes_per_second"] > 0, "throughput", result)
            check(isinstance(way["measured"]["zeros"], bool), "zeros", result)
    chosen = [way["transport"] for way in report["candidates"] if way["chosen"]]
    equal(chosen, [report["chosen"]] if report["chosen"] else [], "chosen", result)


@case("on one host: shm is chosen, measured, and the others have reasons")
def same_host():
    with Target(size="8M") as target:
        report = explain("--remote_segment", target.name)
        reasoned(report)
        equal(report["chosen"], "shm", "chosen", report["result"])
        if not RDMA:
            check(not report["by"]["verbs"]["usable"], "verbs without a device", report["result"])
        check("--listen" in report["by"]["tcp"]["reason"], "tcp: what would change that",
              report["result"])
        result = run([harness.INITIATOR, "explain", "--remote_segment", target.name])
        equal(result.code, 0, "exit code", result)
        for part in ("shm", "verbs", "tcp", "chosen: shm", "expected", "measured",
                     report["by"]["tcp"]["reason"]):
            check(part in result.out, f"lacks {part!r}", result)
        target.stop()


def on_terminal(columns, *args):
    """What a program writes on a terminal of that many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 65536):
            text += data
    except OSError:  # EIO: the other end was closed
        pass
    os.close(ours)
    return harness.Result(args, process.wait(harness.HANG_SECONDS), text.decode(), "")


@case("on a terminal long reasons stand in lines that end between words; elsewhere in one")
def wrapped():
    with Target(size="8M") as target:
        reason = explain("--remote_segment", target.name)["by"]["tcp"]["reason"]
        result = on_terminal(50, harness.INITIATOR, "explain", "--remote_segment", target.name)
        equal(result.code, 0, "exit code", result)
        check(reason not in result.out, "it is in one line", result)
        check(reason in " ".join(result.out.split()), "it is not there as a whole", result)
        lines = [line for line in result.out.splitlines() if line.startswith(" " * 13)]
        check(len(lines) > 3 and all(len(line) <= 50 for line in lines), "too long", result)
        target.stop()


@case("a small segment, one that can only be read, and a poller: it is measured all the same")
def small():
    with Target("--read-only", size="5") as target:
        reasoned(explain("--remote_segment", target.name))
        reasoned(explain("--remote_segment", target.name, "--pollers", 1))
        target.stop()


@case("over TCP at an address, both ways are measured; which is chosen is named")
def over_tcp():
    with Target("--listen", "127.0.0.1:0", size="8M") as target:
        listen = target.wait_for(r"^ready: .* listen=(\S+)$").group(1)
        check(f"{target.name}@{listen}" in target.texts["out"], "the command for it", target)
        report = explain("--remote_segment", f"{target.name}@{listen}")
        reasoned(report)
        check(report["by"]["tcp"]["usable"], "tcp", report["result"])
        report = explain("--remote_segment", f"{target.name}@{listen}", "--require", "tcp")
        equal(report["chosen"], "tcp", "chosen", report["result"])
        target.stop()


@case("a transport that is required and cannot be had: none, with the reason, exit code 1")
def required():
    with Target(size="8M") as target:
        for name in ("tcp",) if RDMA else ("tcp", "verbs"):
            report = explain("--remote_segment", target.name, "--require", name, code=1)
            equal(report["chosen"], None, f"--require {name}", report["result"])
            result = run([harness.INITIATOR, "--remote_segment", target.name, "--require", name,
                          "--no-use_vram"])
            equal(result.code, 1, "a run by it", result)
            check(f"{name} was required: " + report["by"][name]["reason"] in result.err,
                  "the reason", result)
        target.stop()


@case("without RDMA: auto takes another way and says why")
def without_rdma():
    if RDMA:
        raise harness.Skip("this machine has RDMA devices: " + " ".join(RDMA))
    with Target(size="8M") as target:
        report = explain("--remote_segment", target.name)
        equal(report["chosen"], "shm", "chosen", report["result"])
        check("RDMA" in report["by"]["verbs"]["reason"], "why not verbs", report["result"])
        target.stop()


@case("an RDMA device that is named and is not there is an error, and is named")
def named_device():
    with Target(size="8M") as target:
        for program, *args in ((harness.INITIATOR, "--remote_segment", target.name),
                               (harness.INITIATOR, "explain", "--remote_segment", target.name),
                               (harness.TARGET, "--segment", f"{unique()}=1M")):
            result = run([program, *args, "--rdma-device", "nosuch0:1"])
            equal(result.code, 1, "exit code", result)
            check("nosuch0" in result.err, "the device is not named", result)
        target.stop()


@case("--no-rdma uses no device: verbs cannot be taken, and that is the reason")
def no_rdma():
    with Target("--no-rdma", size="8M") as target:
        report = explain("--remote_segment", target.name)
        check(not report["by"]["verbs"]["usable"], "the target's --no-rdma", report["result"])
        report = explain("--remote_segment", target.name, "--no-rdma")
        check(not report["by"]["verbs"]["usable"], "ours", report["result"])
        check("rdma" in report["by"]["verbs"]["reason"].lower(), "the reason", report["result"])
        target.stop()


@case("nobody there: exit code 1, and why")
def nobody():
    name = unique()
    report = explain("--remote_segment", name, code=1)
    check(name in report["error"], "the cause", report["result"])
    equal(report["candidates"], [], "candidates", report["result"])
    result = run([harness.INITIATOR, "explain", "--remote_segment", name])
    check("none: " in result.out and name in result.out, "the cause", result)
    result = run([harness.INITIATOR, "explain"])
    equal(result.code, 2, "without a segment", result)


def doctor(*args):
    result = run([harness.INITIATOR, "doctor", "--json", "-", *args])
    report = json.loads(result.out)
    equal(result.code, 1 if report["problems"] else 0, "exit code", result)
    return {finding["check"]: finding for finding in report["findings"]} | {"result": result}


@case("the doctor reaches the target, and names its rights and its ways")
def reach():
    with Target(size="1M") as target:
        findings = doctor("--remote_segment", target.name)
        equal(findings["target"]["verdict"], "ok", "target", findings["result"])
        check("read,write" in findings["rights"]["seen"], "rights", findings["result"])
        equal(findings["way by shm"]["verdict"], "ok", "shm", findings["result"])
        if not RDMA:
            equal(findings["way by verbs"]["verdict"], "absent", "verbs", findings["result"])
            equal(findings["transport verbs"]["verdict"], "absent", "verbs", findings["result"])
        target.stop()
    with Target("--read-only", size="1M") as target:
        findings = doctor("--remote_segment", target.name, "--workload", "write")
        equal(findings["rights"]["verdict"], "problem", "rights", findings["result"])
        check("granted: read;" in findings["rights"]["seen"], "rights", findings["result"])
        findings = doctor("--remote_segment", target.name, "--workload", "read")
        equal(findings["rights"]["verdict"], "ok", "rights", findings["result"])


@case("the doctor names what keeps it from the target")
def unreachable():
    name = unique()
    findings = doctor("--remote_segment", name)
    equal(findings["target"]["verdict"], "problem", "target", findings["result"])
    check(name in findings["target"]["seen"], "the cause", findings["result"])
    equal(findings["result"].code, 1, "exit code", findings["result"])
    equal(doctor()["target"]["verdict"], "skipped", "without a name")


if __name__ == "__main__":
    harness.main()
