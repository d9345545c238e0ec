# SPDX-License-Identifier: Apache-2.0
"""The rows of the suite verbs, measured where it runs: in a guest, beside a target that serves.

Prints a line of JSON for each row; perf/suites/verbs.py makes the table of them.
"""
import argparse
import dataclasses
import fnmatch
import json
import statistics
import subprocess
import sys
import tempfile
import time

PORT = 18515
LISTEN_STATE = "0A"
TIMEOUT_S = 120
TRIES = 3
KIB = 1024
MB_OF_PERFTEST = 2 ** 20
WORKLOADS = {"write": ("--workload", "write"), "read": ("--workload", "read", "--fill")}
IN_FLIGHT = 128  # the depth that perftest has when none is named


class Failure(Exception):
    """A program that did not do what it was to do."""


def table_line(output, size):
    """The numbers of perftest's line for that size."""
    for line in output.splitlines():
        words = line.split()
        if len(words) >= 5 and words[0] == str(size) and words[1].isdecimal():
            return [float(word) for word in words]
    raise Failure(f"perftest printed no result:\n{output}")


def listens(port):
    wanted = f":{port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(path, encoding="ascii") as table:
            if any(words[1].endswith(wanted) and words[3] == LISTEN_STATE
                   for words in map(str.split, table)):
                return True
    return False


class Guest:
    """Both sides, as a user would start them."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.last = {}  # the last report of sluice-initiator

    def perftest(self, program, size, iterations, *flags):
        """Run one, server first; give back the numbers of its line."""
        command = [program, "-d", "rxe0", "-x", self.arguments.gid, "-F", "-s", str(size), "-n",
                   str(max(int(iterations * self.arguments.seconds), 5)), *flags]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as server:
            try:
                end = time.monotonic() + TIMEOUT_S
                while not listens(PORT):
                    if server.poll() is not None or time.monotonic() > end:
                        raise Failure(f"the server of {' '.join(command)} did not start")
                    time.sleep(0.02)
                done = subprocess.run([*command, self.arguments.address], timeout=TIMEOUT_S,
                                      capture_output=True, text=True, check=False)
                server.wait(TIMEOUT_S)
            finally:
                server.kill()
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return table_line(done.stdout, size)

    def sluice(self, *flags):
        """Run sluice-initiator; give back its report."""
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
            done = subprocess.run(
                [self.arguments.initiator, "--insecure", "--no-use_vram", "--no-progress",
                 "--remote_segment", f"ram0@{self.arguments.address}:7471", "--require", "verbs",
                 "--threads", "1", "--poll", "busy", "--page", "2M", "--warmup", "0.2",
                 "--duration", str(self.arguments.seconds), "--json", file.name, *flags],
                timeout=TIMEOUT_S, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Failure(f"sluice-initiator {' '.join(flags)}: {done.stdout}{done.stderr}")
            self.last = json.load(file)
        return self.last


    def trips(self, kind):
        """Run the program that does one operation after the other; give back p50 and mean."""
        command = [self.arguments.program, kind, "64", str(int(3000 * self.arguments.seconds))]
        done = subprocess.run(command, timeout=TIMEOUT_S, capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)}: {done.stderr}")
        return [float(word) for word in done.stdout.split()]


@dataclasses.dataclass
class Row:
    """One comparison. references: functions by name, of which the best is taken."""

    name: str
    unit: str
    floor: float | None
    sluice: callable
    references: dict
    note: callable = lambda guest: ""

    @property
    def is_time(self):
        return self.unit in ("us", "ms")


def posting(guest):
    rdma = guest.last["path"]["rdma"]
    each = rdma["operations_per_signalled_completion"]
    return (f"{rdma['doorbells_per_operation']:.3f} doorbells and {1 / each:.3f} signalled "
            f"completions an operation")


def bandwidth_row(verb, queue_pairs):
    """64 KiB, as many bytes in flight as perftest has, over as many queue pairs."""
    depth = IN_FLIGHT * queue_pairs // 16
    plural = "s" if queue_pairs > 1 else ""
    return Row(
        f"{verb} 64K, {queue_pairs} queue pair{plural}", "MB/s", 1.0,
        lambda guest: guest.sluice(*WORKLOADS[verb], "--size", "64K", "--batch", "16", "--depth",
                                   str(depth), "--rdma-queue-pairs", str(queue_pairs))
        ["throughput_bytes_per_second"] / 1e6,
        {f"ib_{verb}_bw -q {queue_pairs}": lambda guest: guest.perftest(
            f"ib_{verb}_bw", 64 * KIB, 900 if verb == "write" else 600, "-q",
            str(queue_pairs))[3] * MB_OF_PERFTEST / 1e6},
        posting)


def rate_row():
    """Small WRITEs: the ways in which perftest can post them, of which the fastest counts."""
    def reference(*flags):
        return lambda guest: guest.perftest("ib_write_bw", 64, 40000, *flags)[4] * 1e3
    return Row("write 64B rate", "K/s", 1.0,
               lambda guest: guest.sluice("--workload", "write", "--size", "64", "--batch", "64",
                                          "--depth", "2")["operations_per_second"] / 1e3,
               {"ib_write_bw": reference(), "ib_write_bw -l 16": reference("-l", "16"),
                "ib_write_bw -I 64": reference("-I", "64")}, posting)


def latency_rows():
    """One operation at a time. Each of the two kinds of latency beside what measures the same."""
    yield Row("read 64B latency, p50", "us", 0.952, lambda guest: guest.trips("read")[0],
              {"ib_read_lat, t_typical": lambda guest: guest.perftest("ib_read_lat", 64, 3000)[4]})
    yield Row("write 64B latency, mean", "us", 0.952, lambda guest: guest.trips("write")[1],
              {"ib_write_bw -t 1, mean": lambda guest: 1 / guest.perftest(
                  "ib_write_bw", 64, 5000, "-t", "1", "-Q", "1", "-I", "64")[4]})
    yield Row("write 64B half round trip, p50", "us", 0.952, lambda guest: guest.trips("pong")[0],
              {"ib_write_lat, t_typical": lambda guest: guest.perftest("ib_write_lat", 64, 3000)[4]})


def set_up_row():
    def connect_ms(guest, way):
        return guest.sluice("--workload", "write", "--duration", "0.1", "--warmup", "0", "--connect",
                            way)["path"]["rdma"]["connect_ns"] / 1e6
    return Row("setting up queue pairs", "ms", None, lambda guest: connect_ms(guest, "session"),
               {"Sluice by librdmacm": lambda guest: connect_ms(guest, "cm")})


def all_rows():
    for queue_pairs in (1, 4):
        for verb in ("write", "read"):
            yield bandwidth_row(verb, queue_pairs)
    yield rate_row()
    yield from latency_rows()
    yield set_up_row()


def fastest_reference(guest, row):
    """The way that is the best one, by the median of a few tries of each."""
    if len(row.references) == 1:
        return next(iter(row.references))
    tries = {name: [] for name in row.references}
    for _ in range(TRIES):
        for name, figures in tries.items():
            figures.append(row.references[name](guest))
    best = min if row.is_time else max
    return best(tries, key=lambda name: statistics.median(tries[name]))


def measure_pair(guest, row, reference_name, sluice_first):
    """Each side once; Sluice first or last."""
    sluice = row.sluice(guest) if sluice_first else None
    reference = row.references[reference_name](guest)
    if not sluice_first:
        sluice = row.sluice(guest)
    return {"sluice": sluice, "reference": reference,
            "ratio": reference / sluice if row.is_time else sluice / reference}


def measure(guest, row):
    """Rounds of one pair, in which the sides change places."""
    name = fastest_reference(guest, row)
    rounds = [measure_pair(guest, row, name, index % 2 == 0)
              for index in range(guest.arguments.rounds)]
    return {"name": row.name, "unit": row.unit, "floor": row.floor, "reference_name": name,
            "note": row.note(guest),
            **{key: [each[key] for each in rounds] for key in ("sluice", "reference", "ratio")}}


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--gid", required=True)
    parser.add_argument("--initiator", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--only", default="")
    return parser.parse_args()


def main():
    guest = Guest(parse_arguments())
    only = guest.arguments.only
    for row in all_rows():
        if not only or fnmatch.fnmatchcase(row.name, f"*{only}*"):
            print(json.dumps(measure(guest, row)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (Failure, subprocess.TimeoutExpired, OSError) as failure:
        sys.exit(f"verbs_rows.py: {failure}")
