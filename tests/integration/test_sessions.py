# SPDX-License-Identifier: Apache-2.0
"""Many sessions over TLS: what an idle one costs the target, and that none is lost.

Started as test_sessions.py PATH_OF_SLUICE_TARGET PATH_OF_SLUICE_INITIATOR, beside the program
`sessions` in the folder that SLUICE_PARTS names.
"""
import contextlib
import os
import re
import subprocess
import tempfile

import harness
from control import PSK, Authority, Control, context, psk_file
from harness import Target, case, check, equal, eventually

SESSIONS = 1000
SESSION_BYTES_MAX = 8.5 * 1024
CONNECTIONS = 200


def memory_bytes(pid):
    """Heap, stacks, tables. Taken before the first client has come it is a baseline that no memory
    which malloc kept of earlier ones can make look better."""
    return 1024 * harness.memory_kib(pid)


def thread_count(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def port_of(target):
    return int(target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1))


@contextlib.contextmanager
def sessions(remote, count, keys):
    """Another process that has so many sessions open; gives back what it printed."""
    program = os.path.join(os.environ["SLUICE_PARTS"], "sessions")
    with subprocess.Popen([program, remote, str(count), keys], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            told = process.stdout.readline()
            equal(process.stdout.readline(), "ready\n", f"second line after {told!r}")
            yield told
            process.stdin.close()
            equal(process.wait(harness.HANG_SECONDS), 0, "exit code of the client")
        finally:
            process.kill()


def clients_total(target):
    """How many clients a stopped target had, and how many of them vanished."""
    result = target.stop()
    found = re.search(r"(\d+) clients(?:, (\d+) of them vanished)?", result.out)
    check(found, "no count of clients", result)
    return int(found.group(1)), int(found.group(2) or 0)


@case(f"{SESSIONS} idle sessions of one client over TLS take at most "
      f"{SESSION_BYTES_MAX / 1024} KiB each, and no thread")
def one_client():
    with tempfile.TemporaryDirectory() as folder:
        keys = psk_file(folder, guest=PSK)
        with Target("--listen", "127.0.0.1:0", "--psk", keys, size="4M") as target:
            remote = f"{target.name}@127.0.0.1:{port_of(target)}"
            fds = harness.fds(target.pid)
            memory, threads = memory_bytes(target.pid), thread_count(target.pid)
            with sessions(remote, SESSIONS, keys) as told:
                each = (memory_bytes(target.pid) - memory) / SESSIONS
                equal(thread_count(target.pid), threads, "threads")
                eventually(lambda: len(harness.fds(target.pid)) == len(fds) + 1,
                           "they do not share one connection", target)
            print(f"# {told.strip()}, {each:.0f} bytes of the target each", flush=True)
            check(each <= SESSION_BYTES_MAX or harness.SANITIZED,
                  f"{each:.0f} bytes for each session", target)
            equal(clients_total(target), (SESSIONS, 0), "clients, and those that vanished")


@case(f"{CONNECTIONS} clients with a connection each over TLS take no thread")
def many_clients():
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        authority = Authority(folder, "authority")
        certificate, key = authority.issue("target", "127.0.0.1")
        tls = context(authority, authority.issue("guest"))
        target = stack.enter_context(Target("--listen", "127.0.0.1:0", "--tls-cert", certificate,
                                            "--tls-key", key, "--tls-ca", authority.path,
                                            size="4M"))
        address = ("127.0.0.1", port_of(target))

        def connect():
            client = stack.enter_context(Control(address, tls))
            client.hello()
            client.open(target.name)

        connect()
        memory, threads = memory_bytes(target.pid), thread_count(target.pid)
        for _ in range(CONNECTIONS):
            connect()
        each = (memory_bytes(target.pid) - memory) / CONNECTIONS
        equal(thread_count(target.pid), threads, "threads")
        print(f"# {each:.0f} bytes of the target for each connection", flush=True)


if __name__ == "__main__":
    harness.main()
