# SPDX-License-Identifier: Apache-2.0
"""SIGHUP at the target: identities and keys are read again; what is broken is refused."""
import os
import signal
import socket
import tempfile

import harness
from harness import File, Process, case, check, equal, unique

ALICE = "[identity alice]\n{name} = read,write\n"
BOB = "[identity bob]\n* = read\n"


def start(path, name, *args, **options):
    target = Process(harness.TARGET, "--config", path, "--segment", f"{name}=1M", *args,
                     **options)
    target.wait_for(r"^ready: ")
    return target


def hup(target, pattern, stream="out"):
    target.signal(signal.SIGHUP)
    return target.wait_for(pattern, stream)


def ends_well(target):
    target.signal(signal.SIGTERM)
    equal(target.finish().code, 0, "exit code", target)


@case("a changed file takes effect, and each right that changed is named")
def reloads():
    name = unique()
    with File(ALICE.format(name=name)) as file, start(file.path, name) as target:
        file.write(ALICE.format(name=name).replace("read,write", "read") + BOB)
        hup(target, r"^reloaded " + file.path)
        target.wait_for(rf"^  alice on {name}: read, was read,write$")
        target.wait_for(r"^  bob on \*: read, was no line$")
        file.write(BOB)
        hup(target, rf"^  alice on {name}: no line, was read$")
        hup(target, r"^  no right has changed$")
        file.write("[identity *]\n* = read,write\n")
        hup(target, r"^  \* on \*: read,write, was no line$")
        ends_well(target)


@case("an empty file, one without identities, half a one or none leaves the grants as they are")
def nothing_granted():
    name = unique()
    with File(ALICE.format(name=name)) as file, start(file.path, name) as target:
        for text, message in (("", r"has no \[identity NAME\] any more.*write \[identity \*\]"),
                              ("\n\n", "has no .identity NAME. any more"),
                              ("[target]\nnode = -1\n", "has no .identity NAME. any more"),
                              ("# " + ALICE.format(name=name).replace("\n", "\n# ")[:-2],
                               "has no .identity NAME. any more"),
                              (ALICE.format(name=name)[:-1], "in the middle of a line"),
                              (BOB + "[identity mallory]\n* = none", "in the middle of a line")):
            file.write(text)
            hup(target, r"not reloaded, the old .* in force: " + file.path + ".*" + message, "err")
            target.texts["err"] = ""
        check("reloaded " + file.path not in target.texts["out"], "it was reloaded", target)
        file.write(ALICE.format(name=name))
        hup(target, r"^  no right has changed$")
        ends_well(target)


@case("an empty name of a file is an error: it neither turns TLS off nor drops the grants")
def empty_names():
    for flag in ("--psk", "--tls-cert", "--tls-key", "--tls-ca", "--config"):
        result = harness.run([harness.TARGET, "--segment", f"{unique()}=1M", "--listen",
                              "127.0.0.1:0", flag, ""])
        equal(result.code, 2, f"exit code with an empty {flag}", result)
        check(f"{flag} needs a value" in result.err, "the cause", result)


@case("a broken file is refused with its error, and serving goes on by the old rules")
def broken():
    name = unique()
    with File(ALICE.format(name=name)) as file, start(file.path, name) as target:
        for text, message in ((BOB + "[idntity carol]\n* = read\n", r":3: .*\[identity NAME\]"),
                              (BOB + "[target]\nlisten =\n", r":4: listen"),
                              ("[identity carol]\n* = everything\n", r":2: .*none of")):
            file.write(text)
            hup(target, r"not reloaded, the old .* in force: .*" + file.path + message, "err")
        os.unlink(file.path)
        hup(target, r"not reloaded.*No such file", "err")
        check("reloaded " + file.path not in target.texts["out"], "it was reloaded", target)
        file.write(ALICE.format(name=name))
        hup(target, r"^  no right has changed$")
        ends_well(target)


@case("an option that has changed is named, and does not change")
def options():
    name = unique()
    with File(f"[target]\nnode = -1\n{BOB}") as file, start(file.path, name) as target:
        file.write(f"[target]\nnode = 0\n{BOB}")
        hup(target, r"^  option node: the new value counts when")
        ends_well(target)


class Running(Process):
    """An initiator in the middle of a long measurement over TCP."""

    def __init__(self, target, name, *args):
        listen = target.wait_for(r"^ready: .* listen=(\S+)$").group(1)
        self.flags = ["--remote_segment", f"{name}@{listen}", "--require", "tcp", "--workload",
                      "mix", "--size", "4K", "--no-use_vram", "--progress", *args]
        super().__init__(harness.INITIATOR, *self.flags, "--duration", "600", "--warmup", "0",
                         "--threads", "1")
        self.wait_for("measuring", "err")

    def is_revoked(self):
        result = self.finish()
        equal(result.code, 1, "exit code", result)
        check("EKEYREVOKED" in result.out, "the error", result)


@case("a right that is taken away ends the sessions that have it, and no others")
def revoked():
    name = unique()
    both = f"[target]\nlisten = 127.0.0.1:0\n[identity tcp:anonymous]\n{name} = read,write\n"
    with File(both) as file, start(file.path, name) as target:
        with Running(target, name) as process:
            file.write(both + "[identity alice]\n* = none\n")
            hup(target, r"^  alice on \*: none, was no line$")
            file.write(both.replace("read,write", "read"))
            hup(target, rf"^  tcp:anonymous on {name}: read, was read,write$")
            process.is_revoked()
            result = harness.initiator(*process.flags)
            equal(result.code, 1, "a new run", result)
            target.wait_for("tcp:anonymous loses segment", "err")
            equal(target.texts["err"].count("tcp:anonymous loses segment"), 1, "lines about it",
                  target)
        ends_well(target)


@case("a key that is taken away ends its owner's sessions, a broken key file nobody's")
def keys():
    name = unique()
    with tempfile.TemporaryDirectory() as folder, \
            File("[target]\nlisten = 127.0.0.1:0\n[identity *]\n* = read,write\n") as file:
        path = os.path.join(folder, "keys")

        def write_keys(text):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as keys:
                keys.write(text)
        alice, bob = "alice:" + "a1" * 32 + "\n", "bob:" + "b2" * 32 + "\n"
        write_keys(alice + bob)
        with File("", "client.keys") as client, start(file.path, name, "--psk", path) as target:
            with open(os.open(client.path, os.O_WRONLY | os.O_TRUNC), "w") as own:
                own.write(alice + bob)
            os.chmod(client.path, 0o600)
            with Running(target, name, "--psk", client.path, "--identity", "alice") as process:
                write_keys("nonsense\n")
                hup(target, r"not reloaded.*" + path, "err")
                write_keys(bob)
                hup(target, r"^reloaded ")
                process.is_revoked()
                flags = process.flags
            result = harness.initiator(*flags)
            equal(result.code, 1, "alice again", result)
            result = harness.initiator(*flags, "--identity", "bob")
            equal(result.code, 0, "bob", result)
            ends_well(target)


@case("SIGHUP without a file ends nothing")
def without_file():
    with harness.Target(size="1M") as target:
        hup(target, r"^reloaded keys, no file")
        target.stop()


@case("SIGHUP ends an initiator, as it ends any program of a terminal")
def initiator_ends():
    with harness.Target() as target, harness.running_initiator(target) as process:
        process.signal(signal.SIGHUP)
        equal(process.finish().code, -signal.SIGHUP, "exit code", process)


@case("a service manager is told: ready, reloading and ready, stopping")
def service_manager():
    name = unique()
    with tempfile.TemporaryDirectory() as folder, File(BOB) as file:
        for address in (os.path.join(folder, "notify"), f"@sluice-test-{os.getpid()}"):
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.settimeout(harness.HANG_SECONDS)
            manager.bind(address.replace("@", "\0"))
            with manager, start(file.path, name,
                                env={**os.environ, "NOTIFY_SOCKET": address}) as target:
                def told():
                    return manager.recv(4096).decode().splitlines()
                check("READY=1" in told(), "not ready", target)
                target.signal(signal.SIGHUP)
                lines = told()
                equal(lines[0], "RELOADING=1", "reloading", target)
                check(lines[1].startswith("MONOTONIC_USEC="), "the time", target)
                check("READY=1" in told(), "not ready again", target)
                ends_well(target)
                check("STOPPING=1" in told(), "not stopping", target)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started us may have had it ignored
    harness.main()
