# SPDX-License-Identifier: Apache-2.0
"""A client of a target that uses nothing of the library: so it can send what no client of ours would.

Control connections: Control (TCP, plain or TLS by certificates), Keyed (TLS by pre-shared key), Local
(a Unix socket, which passes descriptors). Data goes by Data (tcp) and Shared (shm).
"""
import _ssl
import contextlib
import ctypes
import errno
import hmac
import json
import mmap
import os
import socket
import struct
import subprocess

import harness
from control import Connection, Control, Refused

READ_RIGHT, WRITE_RIGHT = 1, 2

# lib/transport/tcp/wire.h
REQUEST = struct.Struct("<B3xIIIQII")  # type, length, handle, generation, offset, tag, sequence
READ, WRITE, NOTIFY, CALL = 1, 2, 3, 4
RESPONSE = struct.Struct("<BxhII")  # type, status, length, sequence
DONE, DATA, ANSWER = 1, 2, 3


class Keyed(Connection):
    """TLS by pre-shared key, which Python's ssl does not have: through openssl's client."""

    def __init__(self, address, identity, key, source=None):
        ours, theirs = socket.socketpair()
        command = ["openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", "-tls1_3",
                   "-psk_identity", identity, "-psk", key, "-quiet"]
        command += ["-bind", f"{source}:0"] if source else []
        with theirs:
            self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs,
                                            stderr=subprocess.DEVNULL)
        ours.settimeout(harness.HANG_SECONDS)
        super().__init__(ours)

    def __exit__(self, *_):
        super().__exit__()
        self.process.kill()
        self.process.wait()


class Local(Connection):
    """Over a Unix socket: that of a segment, or the one at a path. fds: what was passed so far."""

    transport = "shm"

    def __init__(self, where):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(harness.HANG_SECONDS)
        connected.connect(where if where.startswith("/") else f"\0sluice/{where}")
        super().__init__(connected)
        self.fds = []

    def __exit__(self, *_):
        super().__exit__()
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def receive_bytes(self, count=65536):
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, count, 4)
        except TimeoutError:
            raise harness.Failure("the target says nothing and does not close") from None
        except OSError:
            return b""
        self.fds += fds
        return data

    def share(self, segment, session=1, rights=READ_RIGHT | WRITE_RIGHT):
        """Open a segment and map it; the descriptors are the Shared's from now on."""
        opened = self.open(segment, session, rights)
        fds, self.fds = self.fds, []
        return Shared(opened, fds, rights & WRITE_RIGHT)


class Shared:
    """What shm passes, mapped: the segment, the client's area, and how the owner is woken."""

    def __init__(self, opened, fds, writes):
        self.opened, self.fds = opened, fds
        self.length = opened["length"]
        self.segment_fd, self.area_fd = fds[:2]
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writes else 0)
        grant = opened["grant"]
        self.memory = mmap.mmap(self.segment_fd, grant["mapped_bytes"], mmap.MAP_SHARED,
                                protection, offset=grant["offset"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.memory.close()
        for fd in self.fds:
            os.close(fd)

    def read(self, offset, length):
        return self.memory[offset:offset + length]

    def write(self, offset, data):
        self.memory[offset:offset + len(data)] = data


def invite(control, link=1, count=1):
    """The secret of an invitation to data connections of that link; the client has a session."""
    asked = {"type": "invite", "request": link, "offer": {"link": number(link), "count": count}}
    return control.answer(asked, "invite")["answer"]["secret"]


def fence(control, **offer):
    """Have the target end a link, or an earlier connection, and wait until it says that it has."""
    return control.answer({"type": "fence", "request": 0, "offer": offer}, "fence")["answer"]


def binding_of(control):
    """What both ends of that TLS connection know, and nobody else (RFC 9266). Python's ssl does not
    tell, so its SSL object is asked: the one behind the head of the object and a reference."""
    material = ctypes.create_string_buffer(32)
    label = b"EXPORTER-Channel-Binding"
    address = id(control.socket._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    done = ctypes.CDLL(_ssl.__file__).SSL_export_keying_material(
        ctypes.c_void_p.from_address(address), material, ctypes.c_size_t(32), label,
        ctypes.c_size_t(len(label)), None, ctypes.c_size_t(0), 0)
    harness.check(done == 1, "no keying material of this connection")
    return material.raw.hex()


def proof_of(secret, said):
    """By the secret of a connection, of its end ("end", "over") or what else is said."""
    said = said.encode() if isinstance(said, str) else said
    return hmac.digest(bytes.fromhex(secret), said, "sha256")[:16].hex()


def number(value):
    return f"{value:016x}"


def prove(secret, connection, link, nonce):
    """What a data connection says to a challenge. All are hexadecimal but the link."""
    said = struct.pack("<QQ", int(connection, 16), link) + bytes.fromhex(nonce)
    return proof_of(secret, said)


def claim(data, connection, link):
    """Ask to become a data connection of that link; the nonce that is to be proven, or Refused."""
    return expected(data, {"type": "attach", "connection": connection, "link": number(link)},
                    "challenge")["nonce"]


def expected(data, message, kind):
    data.send(message)
    answer = data.receive()
    if not answer or answer["type"] != kind:
        data.__exit__()
        raise Refused(str(answer))
    return answer


def attach(connect, connection, link, secret):
    """Connect, and become a data connection of that link; or Refused, with what the target said."""
    data = connect()
    nonce = claim(data, connection, link)
    expected(data, {"type": "proof", "proof": prove(secret, connection, link, nonce)}, "attached")
    return data


class Data:
    """A session over tcp with a data connection of its own, a link of the session's number. connect:
    makes connections to the target; control: one that has said hello, if there is one already (then
    it stays the caller's)."""

    def __init__(self, connect, segment, rights=READ_RIGHT | WRITE_RIGHT, control=None, session=1):
        self.sequence = 0
        with contextlib.ExitStack() as stack:
            if not control:
                control = stack.enter_context(connect())
                control.hello()
            self.control = control
            self.grant = control.open(segment, session, rights)["grant"]
            self.data = stack.enter_context(attach(connect, control.welcome["connection"], session,
                                                   invite(control, session)))
            self.stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def head(self, kind, length, offset=0, **changes):
        """The head of the next request. changes: fields of it that are to be something else."""
        fields = {**self.grant, "tag": 0, "sequence": self.sequence, **changes}
        self.sequence += 1
        return REQUEST.pack(kind, length, fields["handle"], fields["generation"], offset,
                            fields["tag"], fields["sequence"])

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.data.receive_bytes(count - len(data))
            harness.check(part, f"closed after {len(data)} of {count} bytes of an answer")
            data += part
        return data

    def carry_out(self, kind, length, offset=0, body=b"", **changes):
        """One request and its response: type, status, and the bytes that came with it."""
        harness.check(self.data.send_bytes(self.head(kind, length, offset, **changes) + body),
                      "the data connection is closed")
        answer, status, more, _ = RESPONSE.unpack(self.exactly(RESPONSE.size))
        return answer, status, self.exactly(more) if answer != DONE else b""

    def read(self, offset, length):
        answer, status, data = self.carry_out(READ, length, offset)
        harness.equal((answer, status), (DATA, 0), f"READ of {length} bytes at {offset}")
        return data

    def write(self, offset, data):
        answer, status, _ = self.carry_out(WRITE, len(data), offset, data)
        harness.equal((answer, status), (DONE, 0), f"WRITE of {len(data)} bytes at {offset}")


PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None, use_errno=True)


def libc(name, *args, result=ctypes.c_int):
    """A call that Python has not; arguments are numbers."""
    function = getattr(_libc, name)
    function.restype = result
    returned = function(*map(ctypes.c_long, args))
    if returned == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return returned


def as_user(uid, function):
    """Run a function in a process of another user, which has none of our rights; returns what it
    returns, which JSON must be able to say."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            libc("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else its own /proc is root's
            result = {"returned": function()}
        except BaseException as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
        os.write(theirs, json.dumps(result).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours) as file:
        result = json.loads(file.read() or '{"failed": "it died"}')
    os.waitpid(child, 0)
    harness.check("failed" not in result, f"a process of user {uid}: {result.get('failed')}")
    return result["returned"]


def refusal(function, *args):
    """The name of the error that a system call ends with, or "done"."""
    try:
        function(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
