# SPDX-License-Identifier: Apache-2.0
"""Sluice's shm path against the limits of the machine, and against UCX over shared memory."""
import dataclasses

from harness import appliances, compare, report, ucx

HUGEPAGES = 1024 + 64  # 1 GiB at either end; small buffers, rings and pools of two processes

GROUPS = ("inline", "poller", "pollers", "busy", "idle")

SAMPLE_SLICE_MS = 100
WRITER = "sluice-initiator --workload write"
WRITER_COPY = "64K from 2M to 1G"
WRITER_SLICES = 20  # of one slice each

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# ucx_perftest allocates from its shared-memory transport and so does ucx_stream. Only sysv gets
# 2 MiB pages, which Sluice has: the better choice for a user with large buffers.
STREAM_ENVIRONMENT = {"UCX_TLS": "sysv,self"}


@dataclasses.dataclass
class Comparison:
    """A figure of Sluice and the same work done by UCX."""

    name: str
    group: str        # of the shm program
    sample: str       # name of the row there
    test: str         # of ucx_perftest, or put or get of ucx_stream
    size: int
    iterations: int   # of ucx_perftest; 0: ucx_stream, which counts time
    unit: str
    floor: float
    buffer: int = GIB  # of ucx_stream, at either end

    @property
    def reference_name(self):
        if not self.iterations:
            return f"UCX {self.test}, ucx_stream"
        return f"ucx_perftest {self.test}{', p50' if self.unit == 'ns' else ''}"


COMPARISONS = (
    Comparison("write 8B rate, inline", "sample", "write 8B", "ucp_put_bw", 8, 10_000_000, "M/s",
               1.2),
    Comparison("write 64B rate, inline", "sample", "write 64B", "ucp_put_bw", 64, 8_000_000, "M/s",
               1.2),
    Comparison("read 8B rate, inline", "sample", "read 8B", "ucp_get", 8, 6_000_000, "M/s", 1.2),
    Comparison("read 64B rate, inline", "sample", "read 64B", "ucp_get", 64, 5_000_000, "M/s", 1.2),
    Comparison("write 64K in 64K, inline", "sample", "write 64K", "put", 64 * KIB, 0, "GB/s", 1.0,
               64 * KIB),
    Comparison("write 1M in 1M, inline", "sample", "write 1M", "put", MIB, 0, "GB/s", 1.0, MIB),
    Comparison("read 64K in 64K, inline", "sample", "read 64K", "get", 64 * KIB, 0, "GB/s", 1.0,
               64 * KIB),
    Comparison("read 1M in 1M, inline", "sample", "read 1M", "get", MIB, 0, "GB/s", 1.0, MIB),
    Comparison("write 64K streaming, inline, UCX", "sample", "write 64K streaming", "put", 64 * KIB,
               0, "GB/s", 1.0),
    Comparison("write 1M streaming, inline, UCX", "sample", "write 1M streaming", "put", MIB, 0,
               "GB/s", 1.0),
    Comparison("read 64K streaming, inline, UCX", "sample", "read 64K streaming", "get", 64 * KIB,
               0, "GB/s", 1.0),
    Comparison("read 1M streaming, inline, UCX", "sample", "read 1M streaming", "get", MIB, 0,
               "GB/s", 1.0),
    Comparison("write notify 8B, half round trip", "notify", "notify 8B", "ucp_put_lat", 8, 500_000,
               "ns", 1.0),
)


def missing(bench, comparison):
    """Why the reference of a comparison cannot be run, or None."""
    if comparison.iterations:
        return ucx.missing()
    return None if bench.has("ucx_stream") else "built without UCX: apt install libucx-dev"


def measure_ucx(bench, comparison):
    if not comparison.iterations:
        return bench.value("ucx_stream", [comparison.test, str(comparison.size), str(comparison.buffer)],
                           slice_ms=SAMPLE_SLICE_MS, environment=STREAM_ENVIRONMENT)
    microseconds, rate = ucx.perftest(bench.cores, comparison.test, comparison.size,
                                      comparison.iterations)
    if comparison.unit == "ns":
        return microseconds * 1000
    return rate / 1e6


def measure_sluice(bench, comparison):
    return bench.value("shm", comparison.group, only=comparison.sample, slice_ms=SAMPLE_SLICE_MS)


def sides_of(bench, comparison):
    return compare.Sides(comparison.name, comparison.unit, comparison.floor,
                         comparison.reference_name, lambda: measure_sluice(bench, comparison),
                         lambda: measure_ucx(bench, comparison))


def written(bench, segment):
    seconds = bench.slice_ms * WRITER_SLICES / 1000
    return appliances.report_of(bench, segment, "--workload", "write", "--size", "64K", "--batch",
                                "16", "--depth", "2", "--warmup", str(seconds / 4), "--duration",
                                str(seconds))


def copied(bench, pages):
    line, = bench.lines("limits", f"writer-{pages}", only=WRITER_COPY, rounds=1)
    return line["reference"][0]


def writer_row(bench):
    """The program itself, beside a plain copy of as many bytes between as large buffers."""
    bench.build_apps()
    with appliances.target(bench, "1G") as segment:
        path = written(bench, segment)["path"]
        huge = path["remote_page_bytes"] > 4096 and path["local_page_bytes"] > 4096
        return compare.compare(bench, compare.Sides(
            WRITER, "GB/s", 0.95, "the fastest plain copy",
            lambda: written(bench, segment)["throughput_bytes_per_second"] / 1e9,
            lambda: copied(bench, "2M" if huge else "4K")))


def rows(bench):
    for group in GROUPS:
        yield from compare.rows_of(bench, "shm", group)
    if compare.wanted(bench, WRITER):
        yield writer_row(bench)
    for comparison in COMPARISONS:
        if not compare.wanted(bench, comparison.name):
            continue
        reason = missing(bench, comparison)
        yield report.row_skipped(comparison.name, reason) if reason else \
            compare.compare(bench, sides_of(bench, comparison))
