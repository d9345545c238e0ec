# SPDX-License-Identifier: Apache-2.0
"""A target that says it is another one, at which a client has something under way or will have.

It can neither hold up what goes to that one nor let go what waits there; nor by asking that one.
"""
import contextlib
import errno
import signal
import tempfile

import harness
from control import Authority, Control, context
from harness import Target, case, check, equal, eventually
from liar import SECRET, Liar, Relay
from liar import context as context_of_target
from remotes import Remotes
from wire import proof_of

LATER_MS = 300


class Stage:
    """A target, a client of it, and a liar who is a client of the target as well. secure: all of it
    under TLS."""

    def __init__(self, folder, secure, **lies):
        with contextlib.ExitStack() as stack:
            flags = tls = ()
            ours = theirs = None
            if secure:
                authority = Authority(folder, "good")
                certificate, key = authority.issue("target", "127.0.0.1")
                flags = ("--tls-cert", certificate, "--tls-key", key, "--tls-ca", authority.path)
                tls = (*authority.issue("client"), authority.path)
                ours = context(authority, authority.issue("liar", "127.0.0.1"))
                theirs = context_of_target(authority, authority.issue("liar", "127.0.0.1"))
            self.target = stack.enter_context(Target("--listen", "127.0.0.1:0", *flags))
            self.address = ("127.0.0.1",
                            int(self.target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1)))
            self.real = stack.enter_context(Control(self.address, ours))
            self.real.hello()
            self.liar = stack.enter_context(Liar(self.real, theirs, **lies))
            self.client = stack.enter_context(Remotes(*tls))
            self.stack = stack.pop_all()
        self.remotes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def relay(self, offer):
        """What the target itself answers to the question."""
        return self.real.answer({"type": "same", "request": 1, "offer": offer}, "same")["answer"]

    def connect(self, port, expected="0"):
        """The number of a new remote over TCP."""
        self.client.connect("tcp", f"{self.target.name}@127.0.0.1:{port}", expected)
        self.remotes += expected == "0"
        return self.remotes - 1

    def write(self, remote, expected):
        """What is to be carried out has the time that it takes."""
        options = {} if expected == "0" else {"timeout_ms": LATER_MS}
        equal(self.client.write(remote, "x", **options)(), expected,
              f"a write by remote {remote}, the liar has heard {self.liar.heard}", self.client)


@contextlib.contextmanager
def stage(secure=True, **lies):
    with tempfile.TemporaryDirectory() as folder, Stage(folder, secure, **lies) as made:
        yield made


def is_apart(scene, real, liar):
    """What the liar does not confirm holds up nothing at the target; and what the target does not
    confirm he doesn't let go, whatever he would say."""
    scene.write(liar, "ETIMEDOUT lands")
    scene.write(real, "0")
    scene.target.freeze()
    scene.write(real, "ETIMEDOUT lands")
    scene.write(real, "ETIMEDOUT")
    scene.target.signal(signal.SIGCONT)
    scene.write(real, "0")
    check(not any(kind == "fence" and "connection" in offer for kind, offer in scene.liar.heard),
          f"the liar was asked for another's: {scene.liar.heard}")


def both_ways(scene):
    """He is met after the target, and before it."""
    real = scene.connect(scene.address[1])
    liar = scene.connect(scene.liar.port)
    check([kind for kind, _ in scene.liar.heard].count("same") == 1, "he was not asked")
    is_apart(scene, real, liar)


@case("a liar with a wrong proof, or none, neither holds up the target nor lets it go")
def wrong_proof():
    for lie in (lambda offer: {"proof": "00" * 16}, lambda offer: {}, lambda offer: {"proof": 7},
                lambda offer: {"proof": proof_of(SECRET, bytes.fromhex(offer["nonce"]) +
                                                 bytes(32))}):
        with stage(same=lie) as scene:
            both_ways(scene)


def liar_first(**lies):
    with stage(**lies) as scene:
        liar = scene.connect(scene.liar.port)
        real = scene.connect(scene.address[1])
        check("same" not in [kind for kind, _ in scene.liar.heard], "he was asked")
        is_apart(scene, real, liar)


@case("nor one who is met before the target is")
def met_first():
    liar_first()


@case("nor one who says what the target has given him, who is its client as well, under TLS")
def given():
    liar_first(given=True)


@case("one who does not answer, or says that he doesn't know, is not connected to")
def no_answer():
    for lie, expected in ((None, "ETIMEDOUT"), (errno.ENOENT, "ENOENT"), (errno.EACCES, "EACCES")):
        with stage(same=lambda offer, lie=lie: lie) as scene:
            real = scene.connect(scene.address[1])
            scene.connect(scene.liar.port, expected)
            scene.write(real, "0")


@case("under TLS one who has the target answer in his place is another all the same")
def relayed():
    with stage(same=lambda offer: scene.relay(offer)) as scene:
        both_ways(scene)


@case("without TLS he can make the target's clients wait, but lets nothing go that waits there")
def relayed_plain():
    for over in (lambda offer: {}, lambda offer: {"proof": offer["proof"]},
                 lambda offer: {"proof": proof_of(SECRET, "over")}):
        with stage(secure=False, same=lambda offer: scene.relay(offer), over=over) as scene, \
                Relay(scene.address) as relay:
            lost = scene.connect(relay.port)
            real = scene.connect(scene.address[1])
            liar = scene.connect(scene.liar.port)
            scene.write(real, "0")
            scene.target.freeze()
            scene.write(lost, "ETIMEDOUT lands")
            relay.cut()
            eventually(lambda: any("connection" in offer for kind, offer in scene.liar.heard
                                   if kind == "fence"), "he is not asked", scene.client)
            scene.write(real, "ETIMEDOUT")
            scene.target.signal(signal.SIGCONT)
            scene.write(real, "0")  # it is asked as well
            scene.write(liar, "ETIMEDOUT lands")
            scene.write(real, "ETIMEDOUT")


@case("nor does he by what the target has given him")
def given_plain():
    with stage(secure=False, given=True) as scene:
        liar = scene.connect(scene.liar.port)
        real = scene.connect(scene.address[1])
        scene.write(real, "0")
        scene.write(liar, "ETIMEDOUT lands")
        scene.write(real, "ETIMEDOUT")


if __name__ == "__main__":
    harness.main()
