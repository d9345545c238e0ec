# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates for a test, and the control protocol of lib/control/message.h spoken by
hand over TCP, with TLS or without."""
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess

import harness

VERSIONS = [6, 6]
PSK = "42" * 32
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def psk_file(folder, **keys):
    """A file of pre-shared keys, by identity."""
    path = os.path.join(folder, f"psk-{'-'.join(keys)}")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{identity}:{key}\n" for identity, key in keys.items())
    return path


class Authority:
    """A certificate authority that lives in a folder."""

    def __init__(self, folder, name):
        if not shutil.which("openssl"):
            raise harness.Skip("no openssl to make certificates with: apt install openssl")
        self.prefix = os.path.join(folder, name)
        self.path = f"{self.prefix}.pem"
        self.openssl("req", "-x509", *NEW_KEY, "-keyout", f"{self.prefix}.key", "-out", self.path,
                     "-subj", f"/CN={name}", "-days", "2")

    @staticmethod
    def openssl(*args):
        result = harness.run(["openssl", *args])
        harness.equal(result.code, 0, "exit code", result)

    def issue(self, name, *addresses, days=2):
        """A certificate for a common name; returns the paths of it and of its key. With 0 days it
        expires in the second of its making."""
        base = f"{self.prefix}-{name}"
        self.openssl("req", "-new", *NEW_KEY, "-keyout", f"{base}.key", "-out", f"{base}.csr",
                     "-subj", f"/CN={name}")
        with open(f"{base}.ext", "w") as file:
            file.write("subjectAltName=" + ",".join(["DNS:localhost"] +
                                                    [f"IP:{each}" for each in addresses]) + "\n")
        self.openssl("x509", "-req", "-in", f"{base}.csr", "-CA", self.path, "-CAkey",
                     f"{self.prefix}.key", "-CAcreateserial", "-days", days, "-extfile",
                     f"{base}.ext", "-out", f"{base}.pem")
        return f"{base}.pem", f"{base}.key"


    def revoke(self, *certificates):
        """Make a revocation list with these; returns its path."""
        config, path = f"{self.prefix}.cnf", f"{self.prefix}.crl"
        with open(config, "w") as file:
            file.write("[ca]\ndefault_ca = one\n[one]\ndefault_md = sha256\n"
                       f"database = {self.prefix}.index\ndefault_crl_days = 2\n")
        open(f"{self.prefix}.index", "a").close()
        sign = ("ca", "-config", config, "-cert", self.path, "-keyfile", f"{self.prefix}.key")
        for certificate in certificates:
            self.openssl(*sign, "-revoke", certificate)
        self.openssl(*sign, "-gencrl", "-out", path)
        return path


def context(authority, certificate=None):
    """TLS as a client of a target; certificate: a pair of paths."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.load_verify_locations(authority.path)
    if certificate:
        made.load_cert_chain(*certificate)
    return made


class Refused(Exception):
    """The other end has closed, or never let us in."""


class Connection:
    """Messages over a connected socket."""

    transport = "tcp"

    def __init__(self, connected):
        self.socket = connected
        self.data = b""  # received, and not yet a message

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_bytes(self, data):
        """Returns whether the other end has taken them."""
        try:
            self.socket.sendall(data)
        except (OSError, ssl.SSLError):
            return False
        return True

    def send(self, message):
        return self.send_bytes(framed(message))

    def receive_bytes(self, count=65536):
        """What comes next; nothing when the other end has closed."""
        try:
            return self.socket.recv(count)
        except TimeoutError:
            raise harness.Failure("the target says nothing and does not close") from None
        except (OSError, ssl.SSLError):
            return b""

    def receive(self):
        """The next message, or None when the target has closed."""
        while True:
            if len(self.data) >= 4:
                end = 4 + struct.unpack("<I", self.data[:4])[0]
                if len(self.data) >= end:
                    body, self.data = self.data[4:end], self.data[end:]
                    return json.loads(body)
            part = self.receive_bytes()
            if not part:
                return None
            self.data += part

    def answer(self, message, expected):
        """Send a message and take the answer, which must be of that type."""
        self.send(message)
        answer = self.receive()
        while answer and answer["type"] == "ping":
            answer = self.receive()
        harness.check(answer and answer["type"] == expected, f"{message}: {answer}")
        return answer

    def hello(self, name="test"):
        self.welcome = self.answer({"type": "hello", "versions": VERSIONS, "name": name}, "welcome")
        return self.welcome

    def open(self, segment, session=1, rights=3, expected="opened"):
        return self.answer({"type": "open", "session": session, "segment": segment,
                            "rights": rights, "transports": [self.transport]}, expected)

    def closed(self):
        """Wait until the target has closed."""
        while self.receive_bytes():
            pass

    def is_open(self):
        """Has the target not closed yet? Drops what it sent."""
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(65536))
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except (OSError, ssl.SSLError):
            return False
        finally:
            self.socket.setblocking(True)


class Control(Connection):
    """A connection to a target. tls: an SSLContext; source: the address to come from."""

    def __init__(self, address, tls=None, source=None):
        plain = socket.create_connection(address, harness.HANG_SECONDS,
                                         (source, 0) if source else None)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(plain)
        if tls:
            try:
                self.socket = tls.wrap_socket(plain)
            except (OSError, ssl.SSLError) as error:
                plain.close()
                raise Refused(str(error)) from error


def framed(message):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack("<I", len(body)) + body


def s_client(address, identity, key, source=None):
    """One TLS handshake by pre-shared key, by other people's code; returns what openssl says."""
    command = ["openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", "-psk_identity",
               identity, "-psk", key, "-tls1_3", "-quiet", "-no_ign_eof"]
    command += ["-bind", f"{source}:0"] if source else []
    done = subprocess.run(command, input=b"", capture_output=True, check=False,
                          timeout=harness.HANG_SECONDS)
    return done.stderr.decode(errors="replace")
