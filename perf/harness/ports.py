# SPDX-License-Identifier: Apache-2.0
"""TCP ports of the servers that are measured."""
import socket
import time

from .programs import Failure

TIMEOUT_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def listening(port):
    """Does anybody listen on that TCP port? Asked of the kernel: a connection would be taken."""
    wanted = f":{port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(path, encoding="ascii") as table:
            for line in table:
                words = line.split()
                if words[1].endswith(wanted) and words[3] == "0A":
                    return True
    return False


def wait_listening(server, port, name):
    end = time.monotonic() + TIMEOUT_S
    while not listening(port):
        if server.poll() is not None or time.monotonic() > end:
            raise Failure(f"the {name} server did not start")
        time.sleep(0.01)
