# SPDX-License-Identifier: Apache-2.0
"""Command lines that cannot be: exit code 2, and a message that names cause and remedy."""
import harness
from harness import Target, case, check, equal, initiator, run


def refused(result, *parts):
    equal(result.code, 2, "exit code", result)
    equal(result.out, "", "stdout", result)
    message = result.err.strip()
    equal(len(message.splitlines()), 1, "lines of the message", result)
    for part in parts:
        check(part in message, f"the message lacks {part!r}", result)


INITIATOR_ERRORS = (
    (["--colour"], "unknown option --colour"),
    (["--integrity_chek"], "did you mean --integrity_check?"),
    (["--sise", "4K"], "did you mean --size?"),
    (["ram0"], "unexpected argument", "ram0"),
    (["-z"], "unknown option -z"),
    (["--workload", "erase"], "read, write, mix"),
    (["--access", "backwards"], "sequential, random"),
    (["--report_unit", "furlongs"], "GB, GiB, Gb, Gib, MB, MiB, Mb, Mib, KB, KiB, Kb, Kib"),
    (["--report_precision", "99"], "0 to 9"),
    (["--transport", "pigeon"], "auto, shm, verbs, tcp, fake"),
    (["--poll", "lazy"], "adaptive, busy"),
    (["--size", "0"], "--size", "out of range"),
    (["--size", "4X"], "is not a size", "64K"),
    (["--size", "-1"], "is not a size"),
    (["--size", "99999999999999999999"], "out of range"),
    (["--batch", "0"], "--batch", "1 to 65536"),
    (["--depth", "0"], "--depth", "1 to 65536"),
    (["--threads", "0"], "--threads", "1 to 1024"),
    (["--threads", "129"], "inline queues", "--pollers"),
    (["--batch", "65536", "--depth", "2"], "65536", "lower one"),
    (["--repeat", "0"], "1 to 1000"),
    (["--duration", "0"], "--duration", "more than 0"),
    (["--connect-timeout", "0"], "--connect-timeout", "more than 0"),
    (["--duration", "-3"], "is not a number"),
    (["--duration", "soon"], "is not a number"),
    (["--rate", "fast"], "is not a rate", "250k"),
    (["--deadline", "1800001"], "0 to 1800000"),
    (["--seed", "x"], "is not a whole number"),
    (["--progress=perhaps"], "true or false"),
    (["--no-size"], "takes a value"),
    (["--json"], "needs a value: FILE"),
    (["--json", "--shmfs"], "needs a value: FILE"),
    (["--sweep", "--size", "4K"], "leave --size out"),
    (["--cores", "one"], "CPU list"),
    (["--cores", "0", "--pollers", "2"], "2 pollers"),
    (["--use_dram=false", "--use_vram=false"], "--use_dram", "no memory is left"),
    (["--metadata_type", "etcd", "--metadata_servers", "localhost:2379"], "etcd", "p2p"),
    (["--metadata_type", "redis", "--metadata_servers", "localhost"], "redis", "p2p"),
    (["--metadata_type", "http", "--metadata_servers", "localhost"], "http", "p2p"),
    (["--metadata_type", "etcd"], "needs --metadata_servers"),
    (["--metadata_type", "carrier"], "p2p, etcd, redis, http"),
    (["--allow-user", "no such user"], "no user", "uid"),
    (["--require", "pigeon"], "auto, shm, verbs, tcp, fake"),
    (["--require", "shm", "--transport", "tcp"], "--require shm", "--transport tcp", "one of"),
    (["--tcp-connections", "9"], "--tcp-connections", "0 to 8"),
    (["--tls-cert", "c.pem"], "--tls-cert, --tls-key and --tls-ca"),
    (["--tls-ca", "c.pem", "--tls-key", "k.pem"], "--tls-cert, --tls-key and --tls-ca"),
    (["--tcp-plain"], "--tcp-plain", "--psk"),
    (["--identity", "alice"], "--identity", "--psk"),
    (["--psk", "keys", "--tls-name", "target"], "--tls-name", "--tls-cert"),
    (["--rdma-queue-pairs", "17"], "--rdma-queue-pairs", "0 to 16"),
    (["--connect", "carrier"], "session, cm"),
    (["--no-rdma", "--require", "verbs"], "--no-rdma", "verbs", "leave one of the two out"),
)

# Of both programs.
RDMA_ERRORS = (
    (["--rdma-device="], "--rdma-device", "NAME"),
    (["--rdma-device", ":1"], "--rdma-device", "NAME:PORT"),
    (["--rdma-device", "mlx5_0/1"], "mlx5_0/1", "NAME:PORT", "rdma link"),
    (["--rdma-device", "mlx5_0:"], "NAME:PORT"),
    (["--rdma-device", "mlx5_0:0"], "1 to 255"),
    (["--rdma-device", "mlx5_0:256"], "1 to 255"),
    (["--rdma-device", "mlx5_0:1:2"], "NAME:PORT"),
    (["--rdma-device", "m" * 64], "NAME:PORT"),
    (["--rdma-gid", "256"], "--rdma-gid", "-1 to 255"),
    (["--rdma-gid", "-2"], "--rdma-gid", "-1 to 255"),
    (["--rdma-mtu", "1500"], "auto, 256, 512, 1024, 2048, 4096"),
    (["--rdma-timeout", "32"], "--rdma-timeout", "-1 to 31"),
    (["--rdma-timeout", "0"], "--rdma-timeout", "for ever", "14 is 67 ms"),
    (["--rdma-retries", "7"], "--rdma-retries", "-1 to 6"),
    (["--rdma-traffic-class", "256"], "--rdma-traffic-class", "-1 to 255"),
    (["--rdma-mut", "4096"], "did you mean --rdma-mtu?"),
)

TARGET_ERRORS = (
    ([], "nothing to serve", "--segment NAME=SIZE"),
    (["--segment", "ram0"], "NAME=SIZE"),
    (["--segment", "ram0="], "is no size"),
    (["--segment", "ram0=0"], "is no size"),
    (["--segment", "ram0=1X"], "is no size"),
    (["--segment", "=1M"], "is no segment name"),
    (["--segment", "a/b=1M"], "is no segment name"),
    (["--segment", "a" * 64 + "=1M"], "is no segment name", "63"),
    (["--segment", "ram0=1M@x"], "is no NUMA node"),
    (["--segment", "a=1M", "--segment", "a=2M"], "asked for twice"),
    (["--segment", "a=1M", "--local_segment", "a"], "asked for twice"),
    (["--local_segment", "a b"], "is no segment name"),
    (["--local_segment", "a", "--size", "0"], "out of range"),
    (["--segment", "a=1M", "--size", "1M"], "--local_segment"),
    (["--segment", "a=1M", "--page", "1G"], "auto, 4K, 2M"),
    (["--segment", "a=1M", "--socket", "/" + "x" * 107], "107"),
    (["--segment", "a=1M", "--socket", "target.sock"], "target.sock", "not absolute"),
    (["--segment", "a=1M", "--listen", "127.0.0.1"], "127.0.0.1", "HOST:PORT"),
    (["--segment", "a=1M", "--listen", ":7475"], ":7475", "HOST:PORT"),
    (["--segment", "a=1M", "--listen", "localhost:80000"], "localhost:80000", "HOST:PORT"),
    (["--segment", "a=1M", "--allow-user", "no such user"], "no user"),
    (["--segment", "a=1M", "--shm-writer", "no such user"], "--shm-writer", "no user"),
    (["--segment", "a=1M", "--shm-writer", "4711"], "4711", "--allow-user"),
    (["--segment", "a=1M", "--shm-writer", "none", "--shm-writer", "root"], "none stands alone"),
    (["--segment", "a=1M", "--poll", "lazy"], "adaptive, busy"),
    (["--segment", "a=1M", "--tls-key", "k.pem"], "--tls-cert, --tls-key and --tls-ca"),
    (["--segment", "a=1M", "--tcp-plain"], "--tcp-plain", "--psk"),
    (["--segment", "a=1M", "--readonly"], "did you mean --read-only?"),
    (["a=1M"], "unexpected argument"),
)


@case("every mistake in the initiator's flags is named")
def initiator_flags():
    for flags, *parts in INITIATOR_ERRORS + RDMA_ERRORS:
        refused(initiator("--remote_segment", "nowhere", *flags, quick=False), *parts)


@case("--remote_segment is required")
def required():
    refused(initiator(), "--remote_segment is required")


@case("every mistake in the target's flags is named")
def target_flags():
    for flags, *parts in TARGET_ERRORS:
        refused(run([harness.TARGET, *flags]), *parts)
    for flags, *parts in RDMA_ERRORS:
        refused(run([harness.TARGET, "--segment", "a=1M", *flags]), *parts)


@case("a load over the segment's size is refused with the numbers")
def over_the_segment():
    with Target(size="1M") as target:
        refused(initiator("--remote_segment", target.name, "--threads", 4),
                "64 KiB", "--batch 16", "--threads 4", "4 MiB", "1 MiB", "lower one of them")
        refused(initiator("--remote_segment", target.name, "--size", "1T", "--batch", "65536",
                          "--depth", 1, "--threads", 128), "1 TiB", "lower one of them")
        refused(initiator("--remote_segment", target.name, "--size", "1048577", "--batch", 1,
                          "--threads", 1), "1048577 B", "1 MiB")
        result = initiator("--remote_segment", target.name, "--size", "1M", "--batch", 1,
                           "--threads", 1)
        equal(result.code, 0, "the largest that fits", result)


@case("names of segments that cannot be are refused")
def bad_names():
    for name in ("a b", "x" * 64, "@", "a@", "ram0@" + "/" + "x" * 108, ""):
        refused(initiator(f"--remote_segment={name}"))


@case("a read with the check needs the right to write, and says so")
def check_on_read_only():
    with Target("--read-only") as target:
        refused(initiator("--remote_segment", target.name, "--integrity_check"),
                "--integrity_check", "--read-only", "grant")


if __name__ == "__main__":
    harness.main()
