# SPDX-License-Identifier: Apache-2.0
"""A target that lies: it takes what is written to it, acknowledges nothing, and says that it is
another target."""
import contextlib
import socket
import ssl
import threading

from control import Connection, Refused
from wire import number

SECRET = "5a" * 16


def context(authority, certificate):
    """TLS as a target that wants no certificate of its clients."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_verify_locations(authority.path)
    made.load_cert_chain(*certificate)
    return made


def close(*sockets):
    """Also while another thread waits for them."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


class Liar:
    """real: a connection to the target that it claims to be, as a client of it. same, over: what it
    answers to `same` and to the fence of another's connection, given the offer: an answer, an error
    or None, which is silence. given: its connections have the number and the secret that the target
    has given it. Of its own links it confirms no end. heard: what it was asked."""

    def __init__(self, real, tls=None, same=lambda offer: {}, over=lambda offer: {}, given=False):
        self.incarnation = real.welcome["incarnation"]
        self.given = {key: real.welcome[key] for key in ("connection", "secret")} if given else {}
        self.tls, self.same, self.over = tls, same, over
        self.heard, self.connections = [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.taken = []

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        close(self.listener, *self.taken)

    def accept(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.taken.append(plain)
            threading.Thread(target=self.serve, args=(plain,), daemon=True).start()

    def serve(self, plain):
        with contextlib.suppress(OSError, ssl.SSLError, Refused):
            connection = Connection(self.tls.wrap_socket(plain, True) if self.tls else plain)
            while message := connection.receive():
                answer = self.answer(message)
                if answer and not connection.send(answer):
                    break
                if message["type"] == "proof":
                    while connection.receive_bytes():
                        pass

    def answer(self, message):
        kind = message["type"]
        if kind == "hello":
            self.connections += 1
            return {"type": "welcome", "version": 6, "name": "liar", "pid": 1, "boot_id": "x",
                    "incarnation": self.incarnation, "identity": "you",
                    "connection": number(self.connections), "secret": SECRET,
                    "tcp": {"host": "127.0.0.1", "port": self.port, "tls": bool(self.tls),
                            "plain": False}, **self.given}
        if kind == "ping":
            return {"type": "pong"}
        if kind == "open":
            return {"type": "opened", "session": message["session"], "transport": "tcp",
                    "length": 1 << 20, "rights": message["rights"], "page_bytes": 4096, "node": 0,
                    "grant": {"handle": 1, "generation": 1}}
        if kind in ("attach", "proof"):
            return {"type": "challenge", "nonce": "00" * 16} if kind == "attach" else \
                {"type": "attached"}
        if "request" not in message:
            return None
        offer = message["offer"]
        self.heard.append((kind, offer))
        told = {"secret": SECRET} if kind == "invite" else self.same(offer) if kind == "same" else \
            self.over(offer) if "connection" in offer else None
        if told is None:
            return None
        said = {"request": message["request"]}
        return {"type": "refused", "error": told, "text": "no", **said} if isinstance(told, int) \
            else {"type": kind, "answer": told, **said}


class Relay:
    """A way to a target on which a client can lose its connections without the target noticing."""

    def __init__(self, address):
        self.address = address
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.clients, self.targets = [], []

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        close(self.listener, *self.clients, *self.targets)

    def cut(self):
        close(self.listener, *self.clients)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                target = socket.create_connection(self.address)
                self.clients.append(client)
                self.targets.append(target)
                for ends in ((client, target), (target, client)):
                    threading.Thread(target=self.carry, args=ends, daemon=True).start()

    @staticmethod
    def carry(source, to):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                to.sendall(data)
