# SPDX-License-Identifier: Apache-2.0
"""Every way to be refused, as a user meets it: its own message, the cause and the remedy."""
import errno
import re
import signal
import tempfile
import time

import control
import harness
from harness import Process, Target, case, check, equal, initiator, unique

KEYS = {"alice": "11" * 32, "mallory": "22" * 32}
_messages = {}


def refused(what, pattern, *args):
    """The initiator fails, with a message of its own for this cause."""
    result = initiator(*args)
    equal(result.code, 1, "exit code", result)
    check(re.search(pattern, result.err), f"{what}: no message like {pattern!r}", result)
    check(len(result.err.splitlines()) <= 2, f"{what}: more than the cause is said", result)
    # Numbers and names apart, no two causes may look alike.
    text = re.sub(r"it-\d+-\d+|\d+", "N", result.err.splitlines()[-1])
    check(_messages.setdefault(text, what) == what, f"{what} says what {_messages[text]} says",
          result)


def address_of(target):
    return re.search(r"listen=(\S+)", target.wait_for(r"^ready: .*$").group(0)).group(1)


def over_tcp(target):
    return ("--require", "tcp", "--remote_segment", f"{target.name}@{address_of(target)}")


@case("a wrong key, an unknown identity, no key, and a key where none is wanted")
def keys():
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        psk = control.psk_file(folder, alice=KEYS["alice"])
        with Target("--listen", "127.0.0.1:0", "--psk", psk) as target:
            where = over_tcp(target)
            refused("wrong key", r"key", *where, "--psk", control.psk_file(other, alice="33" * 32))
            refused("unknown identity", r"mallory|identity", *where, "--psk",
                    control.psk_file(folder, mallory=KEYS["mallory"]))
            refused("no key", r"TLS", *where)
            result = initiator(*where, "--psk", psk)
            equal(result.code, 0, "exit code with the right key", result)
            target.stop()
        with Target("--listen", "127.0.0.1:0") as target:
            refused("a key where none is wanted", r"TLS", *over_tcp(target), "--psk", psk)
            target.stop()


@case("an expired certificate, one of another authority, and one for another name")
def certificates():
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = control.Authority(folder, "ours"), control.Authority(folder, "theirs")
        server, client = ours.issue("target", "127.0.0.1"), ours.issue("alice", "127.0.0.1")
        stranger = theirs.issue("alice", "127.0.0.1")
        elsewhere = ours.issue("elsewhere", "192.0.2.1")
        expired = ours.issue("old", "127.0.0.1", days=0)
        time.sleep(1.5)  # its last second has to pass

        def flags(pair, authority=ours):
            return ("--tls-cert", pair[0], "--tls-key", pair[1], "--tls-ca", authority.path)

        with Target("--listen", "127.0.0.1:0", *flags(server)) as target:
            where = over_tcp(target)
            result = initiator(*where, *flags(client))
            equal(result.code, 0, "exit code with the right one", result)
            refused("expired certificate", r"expired", *where, *flags(expired))
            refused("foreign authority", r"certificate|trusted|authority", *where,
                    *flags(stranger))
            target.stop()
        with Target("--listen", "127.0.0.1:0", *flags(elsewhere)) as target:
            refused("another name", r"name|127\.0\.0\.1", *over_tcp(target), *flags(client))
            target.stop()


@case("a right that was never granted, and one that is revoked in mid-transfer")
def rights():
    with tempfile.TemporaryDirectory() as folder:
        psk = control.psk_file(folder, alice=KEYS["alice"])
        name = unique()
        with harness.File(f"[identity alice]\n{name} = read\n") as file, \
                Target("--listen", "127.0.0.1:0", "--psk", psk, "--config", file.path,
                       name=name) as target:
            where = over_tcp(target)
            refused("right not granted", r"alice asked to write.*may do read", *where, "--psk", psk,
                    "--workload", "write")
            with Process(harness.INITIATOR, *where, "--psk", psk, "--duration", "3600", "--warmup",
                         "0", "--no-use_vram", "--workload", "read", "--progress") as running:
                running.wait_for(r"measuring", "err")
                file.write("[identity bob]\n* = read\n")
                target.signal(signal.SIGHUP)
                result = running.finish()
                equal(result.code, 1, "exit code", result)
                check(re.search(r"right|revoked|granted", result.err + result.out),
                      "the cause is not told", result)
            target.stop()


@case("no such segment, nobody there, no such host, no way, and a bad address")
def places():
    with Target("--listen", "127.0.0.1:0") as target:
        address = address_of(target)
        refused("no such segment", r'no segment "nothere"', "--remote_segment",
                f"nothere@{address}")
        target.stop()
    refused("nobody listens", r"127\.0\.0\.1:9", "--remote_segment", "ram0@127.0.0.1:9")
    refused("no such host", r"host", "--remote_segment", "ram0@no-such-host.invalid:7470")
    refused("needs TLS beyond this host", r"--insecure", "--remote_segment", "ram0@192.0.2.1:7470")
    refused("nobody on this host", r"ram-nowhere", "--remote_segment", "ram-nowhere")


@case("a port that is taken, and an address that is not ours")
def ports():
    with Target("--listen", "127.0.0.1:0") as target:
        address = address_of(target)
        for what, flags, pattern in (
                ("port taken", ("--listen", address), rf"{address}.*"),
                ("not our address", ("--listen", "192.0.2.1:0", "--insecure"), r"192\.0\.2\.1"),
                ("wide without TLS", ("--listen", "0.0.0.0:0"), r"--insecure")):
            result = harness.run([harness.TARGET, "--segment", f"{unique()}=1M", *flags])
            check(result.code in (1, 2), f"{what}: exit code {result.code}", result)
            check(re.search(pattern, result.err), f"{what}: no message like {pattern!r}", result)
        target.stop()


@case("a peer of another protocol version is told which side is older")
def versions():
    with Target("--listen", "127.0.0.1:0") as target:
        host, port = address_of(target).rsplit(":", 1)
        for version in (1, 5, 7):
            with control.Control((host, int(port))) as client:
                client.send({"type": "hello", "versions": [version, version], "name": "old"})
                answer = client.receive()
                equal(answer["type"], "refused", f"answer ({answer})")
                check(re.search(rf"versions {version} to {version}.*upgrade", answer["text"]),
                      f"text: {answer}")
        target.stop()


@case("a path on a transport that needs none is refused, and the session stays")
def paths():
    with Target("--listen", "127.0.0.1:0") as target:
        host, port = address_of(target).rsplit(":", 1)
        with control.Control((host, int(port))) as client:
            client.hello()
            client.open(target.name)
            for request in (0, 1):
                answer = client.answer({"type": "path", "session": 1, "request": request,
                                        "offer": {"link": "x"}}, "refused")
                equal((answer["session"], answer["request"], answer["error"]),
                      (1, request, errno.EOPNOTSUPP), f"refused ({answer})")
                check("tcp" in answer["text"], f"text: {answer}")
            client.answer({"type": "usage"}, "usage")
        target.stop()


if __name__ == "__main__":
    harness.main()
