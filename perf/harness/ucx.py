# SPDX-License-Identifier: Apache-2.0
"""ucx_perftest, as a user would run it over shared memory on one host."""
import os
import shutil
import socket
import subprocess
import time

from .programs import Failure

TIMEOUT_S = 60
ENVIRONMENT = {"UCX_TLS": "posix,self"}
COLUMNS = 8  # iterations; usec: percentile, average, overall; MB/s twice; messages/s twice


def missing():
    """Why ucx_perftest cannot be run, or None."""
    if not shutil.which("ucx_perftest"):
        return "no ucx_perftest: apt install ucx-utils"
    return None if shutil.which("taskset") else "no taskset: apt install util-linux"


def parse(output):
    """Read the final line of ucx_perftest -f: p50 in microseconds and messages a second."""
    for line in reversed(output.splitlines()):
        words = line.split()
        if len(words) == COLUMNS and words[0].isdecimal():
            return float(words[1]), float(words[7])
    raise Failure(f"ucx_perftest printed no result:\n{output}")


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


def wait_listening(server, port):
    end = time.monotonic() + TIMEOUT_S
    while not listening(port):
        if server.poll() is not None or time.monotonic() > end:
            raise Failure("the ucx_perftest server did not start")
        time.sleep(0.01)


def perftest(cores, test, size, iterations):
    """Run one test; give back its p50 in microseconds and messages a second."""
    environment = {**os.environ, **ENVIRONMENT}
    port = str(free_port())
    server_command = ["taskset", "-c", cores[0], "ucx_perftest", "-p", port]
    client_command = ["taskset", "-c", cores[1], "ucx_perftest", "127.0.0.1", "-p", port, "-t",
                      test, "-s", str(size), "-n", str(iterations), "-w",
                      str(max(iterations // 10, 10)), "-f"]
    with subprocess.Popen(server_command, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as server:
        try:
            wait_listening(server, int(port))
            client = subprocess.run(client_command, env=environment, capture_output=True, text=True,
                                    timeout=TIMEOUT_S, check=False)
            if client.returncode != 0:
                raise Failure(f"{' '.join(client_command)}: {client.stderr}")
            return parse(client.stdout)
        except subprocess.TimeoutExpired as late:
            raise Failure(str(late)) from late
        finally:
            server.kill()
