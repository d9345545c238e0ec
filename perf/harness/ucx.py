# SPDX-License-Identifier: Apache-2.0
"""ucx_perftest, as a user would run it on one host, over shared memory or TCP."""
import os
import shutil
import subprocess

from . import ports
from .programs import Failure

TIMEOUT_S = 60
SHARED_MEMORY = {"UCX_TLS": "posix,self"}
TCP = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"}
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


def perftest(cores, test, size, iterations, transport=SHARED_MEMORY):
    """Run one test; give back its p50 in microseconds and messages a second."""
    environment = {**os.environ, **transport}
    port = str(ports.free_port())
    server_command = ["taskset", "-c", cores[0], "ucx_perftest", "-p", port]
    client_command = ["taskset", "-c", cores[1], "ucx_perftest", "127.0.0.1", "-p", port, "-t",
                      test, "-s", str(size), "-n", str(iterations), "-w",
                      str(max(iterations // 10, 10)), "-f"]
    with subprocess.Popen(server_command, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as server:
        try:
            ports.wait_listening(server, int(port), "ucx_perftest")
            client = subprocess.run(client_command, env=environment, capture_output=True, text=True,
                                    timeout=TIMEOUT_S, check=False)
            if client.returncode != 0:
                raise Failure(f"{' '.join(client_command)}: {client.stderr}")
            return parse(client.stdout)
        except subprocess.TimeoutExpired as late:
            raise Failure(str(late)) from late
        finally:
            server.kill()
