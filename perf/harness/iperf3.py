# SPDX-License-Identifier: Apache-2.0
"""iperf3 over the loopback interface, server and client pinned as Sluice's pollers are.

Debian 12's iperf3 (3.12) runs all streams of a process on one thread. Two streams are therefore
tried in both ways: as one pair of processes, and as two pairs on the same two cores.
"""
import dataclasses
import json
import shutil
import statistics
import subprocess

from . import ports
from .programs import Failure

TIMEOUT_S = 60
SECONDS = 1          # a whole number is all that iperf3 takes
INTERVAL_S = 0.1
WARM_UP_INTERVALS = 3
TRIES = 3


@dataclasses.dataclass(frozen=True)
class Way:
    """streams in each of so many pairs of processes."""

    processes: int
    streams: int

    @property
    def name(self):
        streams = f"{self.streams} stream{'s' if self.streams > 1 else ''}"
        return f"iperf3, {streams}" if self.processes == 1 else \
            f"iperf3, {self.processes} processes"


def missing():
    """Why iperf3 cannot be run, or None."""
    return None if shutil.which("iperf3") else "no iperf3: apt install iperf3"


def ways(streams):
    return [Way(1, streams)] + ([Way(streams, 1)] if streams > 1 else [])


def parse(output):
    """GB/s of all streams, warm-up apart: the mean over the intervals that count."""
    try:
        result = json.loads(output)
    except ValueError as error:
        raise Failure(f"iperf3 printed no JSON: {error}\n{output[:400]}") from error
    if "error" in result:
        raise Failure(f"iperf3: {result['error']}")
    sums = [each["sum"] for each in result["intervals"]][WARM_UP_INTERVALS:]
    seconds = sum(each["seconds"] for each in sums)
    if not seconds:
        raise Failure("iperf3 reported too few intervals")
    return sum(each["bytes"] for each in sums) / seconds / 1e9


def start_server(core, port):
    return subprocess.Popen(["taskset", "-c", core, "iperf3", "--server", "--one-off", "--bind",
                             "127.0.0.1", "--port", str(port)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start_client(core, port, size, streams, reverse):
    command = ["taskset", "-c", core, "iperf3", "--client", "127.0.0.1", "--port", str(port),
               "--length", str(size), "--parallel", str(streams), "--time", str(SECONDS),
               "--interval", str(INTERVAL_S), "--json"]
    return subprocess.Popen([*command, *(["--reverse"] if reverse else [])],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(client):
    output, errors = client.communicate(timeout=TIMEOUT_S)
    try:
        return parse(output)
    except Failure as failure:
        raise Failure(f"{failure} {errors}") from failure


def rate(cores, way, size, reverse):
    """GB/s from the client on the first core to the server on the second; reverse: back."""
    servers, clients = [], []
    try:
        for _ in range(way.processes):
            port = ports.free_port()
            servers.append(start_server(cores[1], port))
            ports.wait_listening(servers[-1], port, "iperf3")
            clients.append((cores[0], port))
        clients = [start_client(core, port, size, way.streams, reverse) for core, port in clients]
        return sum(finish(client) for client in clients)
    except subprocess.TimeoutExpired as late:
        raise Failure(str(late)) from late
    finally:
        for process in servers + [each for each in clients if not isinstance(each, tuple)]:
            process.kill()
            process.communicate()


def fastest(cores, streams, size, reverse):
    """The way that is the faster one, by the median of a few tries of each."""
    if len(ways(streams)) == 1:
        return ways(streams)[0]
    tries = {way: [] for way in ways(streams)}
    for _ in range(TRIES):
        for way, rates in tries.items():
            rates.append(rate(cores, way, size, reverse))
    return max(tries, key=lambda way: statistics.median(tries[way]))
