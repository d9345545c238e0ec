# SPDX-License-Identifier: Apache-2.0
"""Sluice's tcp path over the loopback interface, against iperf3, UCX over TCP and plain sockets."""
import statistics

from harness import compare, iperf3, report, ucx

HUGEPAGES = 1024 + 64  # 1 GiB at either end; small buffers, rings and pools of two processes

GROUPS = ("mixed", "stalled", "idle", "sieges")  # that compare by themselves

SAMPLE_SLICE_MS = 500
CIPHER_SLICE_MS = 100
KIB = 1024
MIB = 1024 * KIB

SIZES = (("1M", MIB, 1.0), ("64K", 64 * KIB, 0.9))  # with the floor
UCX_TESTS = ((8, 400_000), (64, 400_000))       # bytes, iterations
UCX_FLOOR = 2.0
STREAMING = ("write", "read")
ENCRYPTED = (("write 1M, TLS", "write 1M, 1 stream"), ("read 1M, TLS", "read 1M, 1 stream"))
ENCRYPTED_FLOOR = 0.85
ENCRYPTED_SMALL = "write 8B, TLS"


def sample(bench, name):
    return lambda: bench.value("tcp", "sample", only=name, slice_ms=SAMPLE_SLICE_MS)


def beside_iperf3(bench, name, streams, size, reads, floor):
    reason = iperf3.missing()
    if reason:
        return report.row_skipped(name, reason)
    way = iperf3.fastest(bench.cores, streams, size, reads)
    return compare.compare(bench, compare.Sides(
        name, "GB/s", floor, way.name, sample(bench, name),
        lambda: iperf3.rate(bench.cores, way, size, reads)))


def beside_ucx(bench, size, iterations):
    name = f"write {size}B rate"
    reason = ucx.missing()
    if reason:
        return report.row_skipped(name, reason)
    return compare.compare(bench, compare.Sides(
        name, "M/s", UCX_FLOOR, "ucx_perftest ucp_put_bw, tcp", sample(bench, f"write {size}B"),
        lambda: ucx.perftest(bench.cores, "ucp_put_bw", size, iterations, ucx.TCP)[1] / 1e6))


class TlsLimit:
    """What a core could do that encrypts each byte and then does all that it does without TLS."""

    def __init__(self, bench, plain):
        self.bench = bench
        self.sample = sample(bench, plain)
        self.cipher = ""
        self.ciphers, self.plains = [], []

    def rate(self):
        line, = self.bench.lines("tcp", "cipher", slice_ms=CIPHER_SLICE_MS)
        self.cipher = line["name"]
        self.ciphers.append(line["value"])
        self.plains.append(self.sample())
        return 1 / (1 / self.ciphers[-1] + 1 / self.plains[-1])

    def note(self):
        return (f"{self.cipher} {statistics.median(self.ciphers):.1f} GB/s on one core, "
                f"plain {statistics.median(self.plains):.1f}")


def beside_cipher(bench, name, plain):
    limit = TlsLimit(bench, plain)
    return compare.compare(bench, compare.Sides(
        name, "GB/s", ENCRYPTED_FLOOR, "1 / (1 / cipher + 1 / plain)", sample(bench, name),
        limit.rate, limit.note))


def beside_plain(bench):
    return compare.compare(bench, compare.Sides(
        ENCRYPTED_SMALL, "M/s", None, "Sluice without TLS", sample(bench, ENCRYPTED_SMALL),
        sample(bench, "write 8B")))


def candidates(bench):
    """Name and function of each row that is measured from here."""
    for verb in ("write", "read"):
        for text, size, floor in SIZES:
            for streams in (1, 2):
                name = f"{verb} {text}, {streams} stream{'s' if streams > 1 else ''}"
                yield name, lambda n=name, v=verb, z=size, f=floor, s=streams: beside_iperf3(
                    bench, n, s, z, v == "read", f)
    for verb in STREAMING:
        name = f"{verb} 1M streaming, 1 stream"
        yield name, lambda n=name, v=verb: beside_iperf3(bench, n, 1, MIB, v == "read", None)
    for size, iterations in UCX_TESTS:
        yield f"write {size}B rate", lambda z=size, i=iterations: beside_ucx(bench, z, i)
    for name, plain in ENCRYPTED:
        yield name, lambda n=name, p=plain: beside_cipher(bench, n, p)
    yield ENCRYPTED_SMALL, lambda: beside_plain(bench)


def rows(bench):
    yield from compare.rows_of(bench, "tcp", "trips")
    for name, row in candidates(bench):
        if compare.wanted(bench, name):
            yield row()
    for group in GROUPS:
        yield from compare.rows_of(bench, "tcp", group)
    for line in bench.lines("sockets", []):
        yield report.row_of_limit(line["name"], line["unit"], line["reference"],
                                  line["reference_name"], line["core_to_core_ns"],
                                  line.get("note", ""))
