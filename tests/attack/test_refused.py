# SPDX-License-Identifier: Apache-2.0
"""The refused one tries to prove who he is, and fails: a wrong key, an identity that nobody knows, a
certificate of another authority.

He may make the target carry out handshakes that fail. He learns nothing of segments or clients.
"""
import contextlib
import re
import ssl

import harness
from control import PSK, Refused, context, s_client
from harness import check, equal
from scene import attack, check_log


@attack("a wrong key, an unknown identity and a foreign certificate are let in nowhere")
def wrong_key(scene):
    for identity, key in (("guest", "43" * 32), ("nobody", PSK)):
        text = s_client(scene.address, identity, key, scene.source)
        check(re.search(r"alert|error|closed", text, re.IGNORECASE), f"{identity}: {text}")
    foreign = context(scene.good, scene.bad.issue("guest"))
    for tls in (foreign, context(scene.good)):
        with contextlib.suppress(Refused), scene.connect(tls) as client:
            client.send({"type": "hello", "versions": [2, 4], "name": "intruder"})
            equal(client.receive(), None, "answer to hello")


def renamed(authority, name):
    """A certificate whose common name is one that openssl's own command would not write: that of an
    issued one is replaced, and the whole signed again."""
    placeholder = "ZqJx" * 16
    certificate, key = authority.issue(placeholder[:len(name)])
    with open(certificate) as file:
        body = ssl.PEM_cert_to_DER_cert(file.read())
    tbs, rest = der_split(der_content(body))
    tbs = tbs.replace(placeholder[:len(name)].encode(), name)
    algorithm, _ = der_split(rest)
    base = f"{authority.prefix}-renamed"
    with open(f"{base}.tbs", "wb") as file:
        file.write(tbs)
    authority.openssl("dgst", "-sha256", "-sign", f"{authority.prefix}.key", "-out", f"{base}.sig",
                      f"{base}.tbs")
    with open(f"{base}.sig", "rb") as file:
        signature = file.read()
    whole = der(0x30, tbs + algorithm + der(0x03, b"\0" + signature))
    with open(certificate, "w") as file:
        file.write(ssl.DER_cert_to_PEM_cert(whole))
    return certificate, key


def der(tag, content):
    size = len(content)
    head = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + head + content


def der_split(data):
    """The first element, and what follows it."""
    size, head = data[1], 2
    if size & 0x80:
        head += size & 0x7f
        size = int.from_bytes(data[2:head], "big")
    return data[:head + size], data[head + size:]


def der_content(data):
    return data[2 + (data[1] & 0x7f if data[1] & 0x80 else 0):]


@attack("a certificate whose name is no identity is refused, and forges no line of the log",
        flags=["-v"])
def odd_certificates(scene):
    for name in (b"guest\0.evil", b"\0" * 4, b"x\nFORGED: all is well", b"\x1b[2J", b"a b c d", b"user:root",
                 b"*" * 4, b"a" * 64):
        tls = context(scene.good, renamed(scene.good, name))
        with contextlib.suppress(Refused), scene.connect(tls) as client:
            client.send({"type": "hello", "versions": [2, 4], "name": "odd"})
            answer = client.receive()
            check(answer is None or answer["type"] == "refused", f"{name}: {answer}")
    check_log(scene.target)


@attack("an identity that is no identity is not known, and forges no line of the log", flags=["-v"])
def odd_identities(scene):
    for identity in ("guest\nFORGED: all is well", "\x1b[2J", "a" * 200, "*", "anonymous",
                     "user:root"):
        text = s_client(scene.address, identity, PSK, scene.source)
        check(re.search(r"alert|error|closed", text, re.IGNORECASE), f"{identity!r}: {text}")
    check_log(scene.target)


if __name__ == "__main__":
    harness.main()
