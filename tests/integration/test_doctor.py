# SPDX-License-Identifier: Apache-2.0
"""The doctor: every verdict, on machines that are made up; and on the one that we run on."""
import json
import os
import struct
import tempfile

import harness
from harness import File, case, check, equal, run, unique

NODES = "sys/devices/system/node/"
NODE = NODES + "node{}/hugepages/hugepages-2048kB/"
CPU = "sys/devices/system/cpu/"
THP = "sys/kernel/mm/transparent_hugepage/enabled"
CLOCK = "sys/devices/system/clocksource/clocksource0/"
IB = "sys/class/infiniband/mlx5_0/"
VERBS = "sys/class/infiniband_verbs/uverbs0/"
PCI = "sys/bus/pci/devices/"
LIMITS = ("Limit                     Soft Limit           Hard Limit           Units     \n"
          "Max open files            {files:<20} 1048576              files     \n"
          "Max locked memory         {lock:<20} unlimited            bytes     \n")

# A machine in the best of health, with everything.
HEALTHY = {
    NODE.format(0) + "nr_hugepages": "1024",
    NODE.format(0) + "free_hugepages": "1000",
    NODE.format(1) + "nr_hugepages": "1024",
    NODE.format(1) + "free_hugepages": "1024",
    THP: "always [madvise] never",
    "proc/sys/kernel/numa_balancing": "0",
    "proc/self/limits": LIMITS.format(files=1048576, lock="unlimited"),
    "proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-3\n",
    "proc/self/cgroup": "0::/user.slice\n",
    "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   64000000 kB\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory",
    "sys/fs/cgroup/user.slice/cgroup.procs": "",
    "sys/fs/cgroup/user.slice/cpu.max": "max 100000",
    "sys/fs/cgroup/user.slice/memory.max": "max",
    CPU + "online": "0-3",
    CPU + "isolated": "2-3",
    CPU + "nohz_full": "2-3",
    CPU + "cpu0/cpufreq/scaling_governor": "performance",
    CPU + "cpu1/cpufreq/scaling_governor": "performance",
    CLOCK + "current_clocksource": "tsc",
    CLOCK + "available_clocksource": "tsc hpet acpi_pm",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t33554432",
    "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t16777216",
    "proc/sys/net/ipv4/tcp_available_ulp": "espintcp mptcp tls",
    "proc/sys/net/core/rmem_max": "212992",
    "proc/sys/net/core/wmem_max": "212992",
    "proc/sys/net/core/somaxconn": "4096",
    IB + "ports/1/state": "4: ACTIVE",
    IB + "ports/1/rate": "100 Gb/sec (4X EDR)",
    IB + "ports/1/link_layer": "Ethernet",
    IB + "ports/1/gids/0": "fe80:0000:0000:0000:0000:0000:0000:0001",
    IB + "ports/1/gids/1": "0000:0000:0000:0000:0000:ffff:0a00:0001",
    IB + "ports/1/gids/2": "0000:0000:0000:0000:0000:0000:0000:0000",
    IB + "ports/1/gid_attrs/types/0": "IB/RoCE v1",
    IB + "ports/1/gid_attrs/types/1": "RoCE v2",
    IB + "ports/1/gid_attrs/ndevs/0": "eth9",
    IB + "device/numa_node": "1",
    IB + "device/iommu_group/type": "identity",
    VERBS + "ibdev": "mlx5_0",
    VERBS + "dev": "231:192",
    "sys/class/misc/rdma_cm/abi_version": "4",
    "dev/infiniband/rdma_cm": "",
    NODES + "node0/cpulist": "0-1",
    NODES + "node1/cpulist": "2-3",
    IB + "device/uevent": "DRIVER=mlx5_core\nPCI_SLOT_NAME=0000:3b:00.0\n",
    IB + "device/current_link_width": "16",
    IB + "device/max_link_width": "16",
    IB + "device/current_link_speed": "16.0 GT/s PCIe",
    IB + "device/max_link_speed": "16.0 GT/s PCIe",
    "dev/infiniband/uverbs0": "",
    "sys/class/net/eth9/mtu": "9000",
    PCI + "0000:17:00.0/class": "0x030200",
    PCI + "0000:17:00.0/vendor": "0x10de",
    PCI + "0000:00:01.0/class": "0x060400",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14",
    "sys/module/nvidia_peermem/version": "1",
}


def config_space(relaxed=True, acs=0):
    """Registers of a PCI Express device: the capabilities that the doctor looks for."""
    space = bytearray(4096)
    struct.pack_into("<H", space, 0x06, 0x0010)
    space[0x34] = 0x40
    space[0x40:0x42] = bytes((0x01, 0x60))  # power management comes first
    space[0x60:0x62] = bytes((0x10, 0x00))
    struct.pack_into("<H", space, 0x68, 0x2810 if relaxed else 0x2800)
    struct.pack_into("<HH", space, 0x100, 0x0001, 0x1402)  # AER, the next at 0x140
    struct.pack_into("<HH", space, 0x140, 0x000d, 0x0001)
    struct.pack_into("<H", space, 0x146, acs)
    return bytes(space)


HEALTHY[IB + "device/config"] = config_space()
HEALTHY[PCI + "0000:00:01.0/config"] = config_space()

# Soft-RoCE, as a guest of tests/lab showed it (Linux 6.1): it has no folder "device".
RXE = "sys/class/infiniband/rxe0/"
SOFT = {
    RXE + "parent": "rail0",
    RXE + "node_type": "1: CA",
    RXE + "ports/1/state": "4: ACTIVE",
    RXE + "ports/1/phys_state": "5: LinkUp",
    RXE + "ports/1/rate": "2.5 Gb/sec (1X SDR)",
    RXE + "ports/1/link_layer": "Ethernet",
    RXE + "ports/1/gids/0": "fe80:0000:0000:0000:5054:00ff:fe51:0000",
    RXE + "ports/1/gids/1": "0000:0000:0000:0000:0000:ffff:0a4d:0001",
    RXE + "ports/1/gids/2": "0000:0000:0000:0000:0000:0000:0000:0000",
    RXE + "ports/1/gid_attrs/types/0": "RoCE v2",
    RXE + "ports/1/gid_attrs/types/1": "RoCE v2",
    RXE + "ports/1/gid_attrs/ndevs/0": "rail0",
    RXE + "ports/1/gid_attrs/ndevs/1": "rail0",
    "sys/class/net/rail0/mtu": "1500",
    "sys/class/net/rail0/device/numa_node": "0",
    VERBS + "ibdev": "rxe0",
    IB + "*": None,
}


class Machine:
    """HEALTHY with changes; None takes a file away, and "FOLDER/*" all that is in it."""

    def __init__(self, changes):
        self.folder = tempfile.TemporaryDirectory()
        files = dict(HEALTHY)
        for name, content in changes.items():
            if name.endswith("/*"):
                files = {n: c for n, c in files.items() if not n.startswith(name[:-1])}
            else:
                files[name] = content
        for name, content in files.items():
            path = os.path.join(self.folder.name, name)
            if content is None:
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode() + b"\n")

    def __enter__(self):
        return self.folder.name

    def __exit__(self, *_):
        self.folder.cleanup()


def examine(changes, *args, program=None, code=None):
    """The findings of a machine: {check: [finding]}."""
    with Machine(changes) as root:
        result = run([program or harness.TARGET, "doctor", "--doctor-root", root, "--json", "-",
                      *args])
    try:
        report = json.loads(result.out)
    except ValueError:
        raise harness.Failure(f"no JSON\n{result}") from None
    equal(report["schema"], "sluice-doctor/1", "schema", result)
    equal(result.code, 1 if report["problems"] else 0, "exit code", result)
    if code is not None:
        equal(result.code, code, "exit code", result)
    findings = {}
    for finding in report["findings"]:
        findings.setdefault(finding["check"], []).append(finding)
    findings["result"] = result
    return findings


def expect(findings, name, verdict, *parts, at=0):
    check(name in findings, f"{name} was not looked at", findings["result"])
    finding = findings[name][at]
    equal(finding["verdict"], verdict, name, findings["result"])
    text = finding["seen"] + " -> " + (finding["remedy"] or "")
    for part in parts:
        check(part in text, f"{name} lacks {part!r}: {text}")


@case("a healthy machine: all is well, nothing to mend")
def healthy():
    for program in (harness.TARGET, harness.INITIATOR):
        findings = examine({}, program=program, code=0)
        for name, entries in findings.items():
            if name == "result":
                continue
            for entry in entries:
                check(entry["verdict"] in ("ok", "absent", "skipped"), f"{entry}",
                      findings["result"])
                if entry["verdict"] == "ok":
                    check(not entry["remedy"], f"mends what is well: {entry}")
        expect(findings, "hugepages node0", "ok", "1000 of 1024")
        expect(findings, "NUMA nodes", "ok", "2")
        expect(findings, "CPUs", "ok", "4 of 4")
        expect(findings, "relaxed ordering mlx5_0", "ok")
        expect(findings, "ACS", "ok")
        expect(findings, "GPU peer memory", "ok", "nvidia_peermem")
        expect(findings, "RDMA devices", "ok", "1, and 1 can be used")
        expect(findings, "RDMA mlx5_0 access", "ok", "uverbs0")
        expect(findings, "RDMA mlx5_0 NUMA node", "ok", "1: ", "--node")
        expect(findings, "RDMA connection manager", "ok", "rdma_cm")
        expect(findings, "IOMMU mlx5_0", "ok", "passed through")


# (changes, arguments, check, verdict, parts of the text)
VERDICTS = (
    ({NODE.format(1) + "nr_hugepages": "0", NODE.format(1) + "free_hugepages": "0"}, [],
     "hugepages node1", "warning", "echo 512", "node1/hugepages"),
    ({NODE.format(0) + "free_hugepages": "0"}, [], "hugepages node0", "warning", "in use",
     "echo 1536"),
    ({NODE.format(0) + "nr_hugepages": None}, [], "hugepages node0", "absent"),
    ({}, ["--segment", "a=8G"], "hugepages for segments", "warning", "4096", "2024 are free"),
    ({}, ["--segment", "a=8G", "--page", "2M"], "hugepages for segments", "problem",
     "--page 2M will fail"),
    ({}, ["--segment", "a=8G"], "memory", "ok", "8 GiB"),
    ({}, ["--segment", "a=1T"], "memory", "problem", "1 TiB", "serving would fail", "serve less"),
    ({}, ["--segment", "a=62G"], "memory", "problem", "62 GiB"),
    ({}, ["--segment", "a=61G", "--segment", "b=1G"], "memory", "warning", "62 GiB"),
    ({}, ["--segment", "a=61G", "--segment", "b=1G", "--page", "4K"], "memory", "problem"),
    ({"proc/meminfo": "MemAvailable: 1000 kB\n"}, ["--segment", "a=3G"], "memory", "ok"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608)}, [], "memlock limit",
     "warning", "8 MiB", "ulimit -l"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608)},
     ["--segment", "a=8M"], "memlock limit", "ok", "would pin 8 MiB"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608)},
     ["--segment", "a=1G"], "memlock limit", "warning", "would pin 1 GiB", "cannot be registered",
     "LimitMEMLOCK=infinity"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608)},
     ["--segment", "a=1G", "--no-rdma"], "memlock limit", "ok", "8 MiB"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608),
      "proc/self/status": "Cpus_allowed_list:\t0-3\nCapEff:\t0000000000004000\n"},
     ["--segment", "a=1G", "--mlock"], "memlock limit", "ok", "CAP_IPC_LOCK"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608),
      "proc/self/status": "Cpus_allowed_list:\t0-3\nCapEff:\t0000000000003fff\n"},
     ["--segment", "a=1G", "--mlock"], "memlock limit", "problem", "--mlock"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608),
      "sys/class/infiniband/*": None, "sys/class/infiniband/.keep": ""}, [], "memlock limit", "ok"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608)},
     ["--segment", "a=1G", "--mlock"], "memlock limit", "problem", "--mlock"),
    ({"proc/self/limits": LIMITS.format(files=1048576, lock=8388608),
      "sys/class/infiniband/*": None}, [], "memlock limit", "ok", "8 MiB"),
    ({"proc/self/limits": None}, [], "memlock limit", "skipped"),
    ({"proc/sys/kernel/numa_balancing": "1"}, [], "NUMA balancing", "warning", "numa_balancing=0"),
    ({"proc/sys/kernel/numa_balancing": "1", "sys/devices/system/node/node1/*": None}, [],
     "NUMA balancing", "ok", "one node"),
    ({"proc/sys/kernel/numa_balancing": None}, [], "NUMA balancing", "absent"),
    ({THP: "[always] madvise never"}, [], "transparent hugepages", "warning", "echo madvise"),
    ({THP: "always madvise [never]"}, [], "transparent hugepages", "ok", "never"),
    ({THP: None}, [], "transparent hugepages", "absent"),
    ({CPU + "isolated": ""}, [], "CPU isolation", "warning", "isolcpus="),
    ({CPU + "nohz_full": "(null)"}, [], "CPU isolation", "warning", "2-3", "nohz_full="),
    ({CPU + "cpu1/cpufreq/scaling_governor": "powersave"}, [], "frequency governor", "warning",
     "powersave on 1 of 2", "cpupower"),
    ({CPU + "cpu0/cpufreq/scaling_governor": None, CPU + "cpu1/cpufreq/scaling_governor": None},
     [], "frequency governor", "absent"),
    ({CLOCK + "current_clocksource": "hpet"}, [], "clock source", "warning", "hpet", "echo tsc"),
    ({CLOCK + "current_clocksource": "hpet", CLOCK + "available_clocksource": "hpet"}, [],
     "clock source", "warning", "dmesg"),
    ({CLOCK + "current_clocksource": "kvm-clock"}, [], "clock source", "ok"),
    ({CLOCK + "current_clocksource": None}, [], "clock source", "skipped"),
    ({"proc/self/status": "Cpus_allowed_list:\t1,3\n"}, [], "CPUs", "ok", "2 of 4"),
    ({"sys/fs/cgroup/user.slice/cpu.max": "150000 100000"}, [], "CPU quota", "warning", "1.50",
     "--cpus"),
    ({"sys/fs/cgroup/user.slice/cpu.max": "50000 100000"}, [], "CPU quota", "problem", "0.50"),
    ({"sys/fs/cgroup/user.slice/cpu.max": "nonsense"}, [], "CPU quota", "skipped"),
    ({"sys/fs/cgroup/user.slice/*": None, "sys/fs/cgroup/cpu.max": "200000 100000"}, [],
     "CPU quota", "warning", "2.00"),
    ({"sys/fs/cgroup/user.slice/memory.max": "1073741824",
      "sys/fs/cgroup/user.slice/memory.current": "536870912"}, ["--segment", "a=768M"],
     "memory limit", "problem", "1 GiB", "--memory"),
    ({"sys/fs/cgroup/user.slice/memory.max": "1073741824",
      "sys/fs/cgroup/user.slice/memory.current": "1048576"}, ["--segment", "a=768M"],
     "memory limit", "ok", "1 GiB"),
    ({"proc/self/cgroup": "1:cpu:/x\n"}, [], "limits of the container", "skipped"),
    ({"proc/self/limits": LIMITS.format(files=1024, lock="unlimited")}, [], "open files",
     "warning", "1024", "ulimit -n 65536"),
    ({"proc/self/limits": LIMITS.format(files=64, lock="unlimited")}, [], "open files", "problem"),
    ({"proc/sys/net/ipv4/tcp_wmem": "4096 16384 262144"}, [], "socket buffers tcp_wmem",
     "warning", "256 KiB", "net.ipv4.tcp_wmem='4096 16384 16777216'"),
    ({"proc/sys/net/ipv4/tcp_rmem": None}, [], "socket buffers tcp_rmem", "skipped"),
    ({"proc/sys/net/core/rmem_max": None}, [], "net.core.rmem_max", "skipped"),
    ({"proc/sys/net/core/somaxconn": "128"}, [], "accept backlog", "warning", "somaxconn=4096"),
    ({"proc/sys/net/ipv4/tcp_available_ulp": "mptcp"}, [], "kernel TLS", "absent"),
    ({"proc/sys/net/ipv4/tcp_available_ulp": "mptcp"}, ["--psk", "/nowhere"], "kernel TLS",
     "warning", "modprobe tls"),
    ({"sys/class/infiniband/*": None}, [], "RDMA devices", "absent", "modprobe mlx5_ib",
     "rdma link add"),
    ({"sys/class/infiniband/*": None, PCI + "0000:3b:00.0/class": "0x020000",
      PCI + "0000:3b:00.0/vendor": "0x15b3", PCI + "0000:3b:00.1/class": "0x020700",
      PCI + "0000:3b:00.1/vendor": "0x8086"}, [], "RDMA devices", "warning", "2 of them",
     "0000:3b:00.0", "modprobe mlx5_ib"),
    ({"sys/class/infiniband/*": None, PCI + "0000:3b:00.0/class": "0x020000",
      PCI + "0000:3b:00.0/vendor": "0x8086"}, [], "RDMA devices", "absent"),
    ({}, ["--no-rdma"], "RDMA devices", "skipped", "--no-rdma"),
    ({IB + "ports/1/state": "1: DOWN"}, [], "RDMA devices", "warning", "1, and none"),
    ({"dev/infiniband/uverbs0": None}, [], "RDMA devices", "warning", "1, and none"),
    ({"sys/class/infiniband/*": None}, [], "relaxed ordering", "absent"),
    ({"sys/class/infiniband/*": None}, [], "GPU peer memory", "absent"),
    ({"sys/class/infiniband/*": None}, [], "ACS", "absent"),
    ({"sys/class/infiniband/*": None}, [], "PCIe links", "absent"),
    ({IB + "ports/1/state": "1: DOWN", IB + "ports/1/phys_state": "3: Disabled"}, [],
     "RDMA mlx5_0 port 1", "warning", "DOWN", "Disabled", "ip link set dev eth9 up"),
    ({IB + "ports/1/state": "2: INIT", IB + "ports/1/link_layer": "InfiniBand"}, [],
     "RDMA mlx5_0 port 1", "warning", "sminfo"),
    ({"dev/infiniband/uverbs0": None}, [], "RDMA mlx5_0 access", "problem", "is not there",
     "--device", "DeviceAllow="),
    ({VERBS + "*": None}, [], "RDMA mlx5_0 access", "problem", "modprobe ib_uverbs"),
    ({VERBS + "ibdev": "mlx5_1"}, [], "RDMA mlx5_0 access", "problem", "modprobe ib_uverbs"),
    ({"dev/infiniband/rdma_cm": None}, [], "RDMA connection manager", "absent", "--device"),
    ({"dev/infiniband/rdma_cm": None, "sys/class/misc/*": None}, [], "RDMA connection manager",
     "absent", "modprobe rdma_ucm", "--connect cm"),
    ({}, ["--node", "1"], "RDMA mlx5_0 NUMA node", "ok", "as --node"),
    ({}, ["--node", "0"], "RDMA mlx5_0 NUMA node", "warning", "--node is 0", "--node 1"),
    ({}, ["--cores", "2,3"], "RDMA mlx5_0 NUMA node", "ok", "all --cores"),
    ({}, ["--cores", "0-2"], "RDMA mlx5_0 NUMA node", "warning", "2 of 3", "node 1: 2-3"),
    ({IB + "device/numa_node": "-1"}, [], "RDMA mlx5_0 NUMA node", "skipped", "firmware"),
    ({IB + "device/iommu_group/type": "DMA-FQ"}, [], "IOMMU mlx5_0", "warning", "DMA-FQ",
     "iommu=pt"),
    ({IB + "device/iommu_group/type": None}, [], "IOMMU mlx5_0", "ok", "none"),
    ({IB + "device/current_link_width": "8"}, [], "PCIe link of mlx5_0", "warning",
     "x8 at 16.0", "x16", "lspci -vvs 0000:3b:00.0"),
    ({IB + "device/current_link_speed": "8.0 GT/s PCIe"}, [], "PCIe link of mlx5_0", "warning",
     "8.0 GT/s"),
    ({IB + "device/config": config_space(relaxed=False)}, [], "relaxed ordering mlx5_0",
     "warning", "CAP_EXP+8.w=10:10"),
    ({IB + "device/config": config_space()[:64]}, [], "relaxed ordering mlx5_0", "skipped",
     "without root"),
    ({PCI + "0000:00:01.0/config": config_space(acs=0x1d)}, [], "ACS", "warning",
     "1 of 1", "setpci -s 0000:00:01.0 ECAP_ACS+6.w=0000"),
    ({PCI + "0000:00:01.0/config": config_space()[:64]}, [], "ACS", "skipped", "without root"),
    ({PCI + "0000:00:01.0/class": "0x020000"}, [], "ACS", "absent"),
    ({"proc/driver/nvidia/version": None}, [], "GPU driver", "problem", "modprobe nvidia"),
    ({"sys/module/nvidia_peermem/*": None}, [], "GPU peer memory", "warning",
     "modprobe nvidia_peermem"),
    ({"sys/module/nvidia_peermem/*": None, "proc/driver/nvidia/version":
      "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14"}, [],
     "GPU peer memory", "ok", "dmabuf"),
)


@case("every verdict, with what was seen and what mends it")
def verdicts():
    for changes, args, name, verdict, *parts in VERDICTS:
        expect(examine(changes, *args), name, verdict, *parts)


@case("ports: no GID is a problem, none of RoCE v2 and a small MTU are warnings")
def ports():
    name = "RDMA mlx5_0 port 1"
    findings = examine({IB + "ports/1/gids/*": None, IB + "ports/1/gids/0": "0:0:0:0:0:0:0:0"})
    expect(findings, name, "problem", "no GID", "ip addr add", at=1)
    findings = examine({IB + "ports/1/gid_attrs/types/1": "IB/RoCE v1"})
    expect(findings, name, "warning", "none of RoCE v2", at=1)
    findings = examine({"sys/class/net/eth9/mtu": "1500"})
    expect(findings, name, "warning", "MTU 1500", "1024 bytes", "mtu 9000", at=2)
    for mtu, verdict, text in ((4192, "ok", "4192"), (4191, "warning", "2048 bytes"),
                               (2144, "warning", "2048 bytes"), (2143, "warning", "1024 bytes"),
                               (1120, "warning", "1024 bytes"), (1119, "warning", " 512 bytes"),
                               (576, "warning", "256 bytes")):
        findings = examine({"sys/class/net/eth9/mtu": str(mtu)})
        expect(findings, name, verdict, text, at=2)
    findings = examine({"sys/class/net/eth9/*": None})
    expect(findings, name, "warning", "eth9 is not in this network namespace", "--network host",
           at=2)
    findings = examine({IB + "ports/1/gids/1": "fe80:0000:0000:0000:0000:0000:0000:0002"})
    expect(findings, name, "warning", "all of this link", "ip addr add", "dev eth9", at=1)
    findings = examine({IB + "ports/1/link_layer": "InfiniBand"})
    expect(findings, name, "ok", "2 GIDs", at=1)
    findings = examine({})
    expect(findings, name, "ok", "100 Gb/sec")
    expect(findings, name, "ok", "2 GIDs, RoCE v2", "index 1 is 10.0.0.1", at=1)
    expect(findings, name, "ok", "MTU 9000", at=2)


@case("a device in software is used, found by its own files, and told apart from a card")
def software():
    findings = examine(SOFT, code=0)
    expect(findings, "RDMA devices", "ok", "1, and 1 can be used")
    expect(findings, "RDMA rxe0 kind", "warning", "rail0", "rdma link delete rxe0")
    expect(findings, "RDMA rxe0 port 1", "ok", "2.5 Gb/sec", "Ethernet")
    expect(findings, "RDMA rxe0 port 1", "ok", "index 1 is 10.77.0.1", at=1)
    expect(findings, "RDMA rxe0 port 1", "warning", "1024 bytes", at=2)
    expect(findings, "RDMA rxe0 access", "ok", "uverbs0")
    expect(findings, "RDMA rxe0 NUMA node", "ok", "0")
    virtio = {"sys/class/net/rail0/device/numa_node": None, "sys/class/net/rail0/device/vendor": "",
              "sys/class/net/rail0/numa_node": "1"}  # device/.. of the machine
    expect(examine({**SOFT, **virtio}), "RDMA rxe0 NUMA node", "ok", "1")
    check("IOMMU rxe0" not in findings, "an IOMMU of what is no card", findings["result"])


@case("what a run with --require verbs or --connect cm needs and lacks is a problem")
def required():
    def lacks(changes, *args):
        return examine(changes, *args, program=harness.INITIATOR, code=1)
    verbs = ["--require", "verbs"]
    expect(lacks({"sys/class/infiniband/*": None}, *verbs), "RDMA devices", "problem",
           "--require verbs fails")
    expect(lacks({IB + "ports/1/state": "1: DOWN"}, *verbs), "RDMA devices", "problem", "none")
    limits = {"proc/self/limits": LIMITS.format(files=1048576, lock=8388608)}
    expect(lacks(limits, *verbs, "--threads", 8), "memlock limit", "problem", "would pin 16 MiB")
    expect(lacks(limits, *verbs, "--sweep"), "memlock limit", "problem", "would pin 1 GiB")
    expect(lacks(limits, *verbs, "--size", "1T", "--batch", 65536, "--depth", 1, "--threads", 128),
           "memlock limit", "problem", "cannot be registered")
    expect(lacks({"dev/infiniband/rdma_cm": None}, "--connect", "cm"), "RDMA connection manager",
           "problem", "--device")


@case("a device's file that is not ours is a problem, and the manager's is named")
def permissions():
    options = {}
    if os.geteuid() == 0:  # whom no mode keeps out
        harness.need_root_to_change_user()
        options["preexec_fn"] = harness.as_nobody
    with Machine({}) as root:
        os.chmod(root, 0o755)
        for name in ("uverbs0", "rdma_cm"):
            os.chmod(os.path.join(root, "dev/infiniband", name), 0)
        result = run([harness.TARGET, "doctor", "--doctor-root", root], **options)
    equal(result.code, 1, "exit code", result)
    for part in ("uverbs0 is not ours", "chmod 666 /dev/infiniband/uverbs0", "rdma_cm is not ours",
                 "1, and none can be used"):
        check(part in result.out, f"lacks {part!r}", result)


@case("hostile configuration spaces: lists in circles, pointers past the end")
def registers():
    circle = bytearray(config_space())
    circle[0x41] = 0x40
    expect(examine({IB + "device/config": bytes(circle)}), "relaxed ordering mlx5_0", "absent")
    for size in (0, 1, 63, 65, 0x60, 0x69, 0x101, 0x145):
        with_size = config_space()[:size]
        findings = examine({IB + "device/config": with_size,
                            PCI + "0000:00:01.0/config": with_size})
        verdict = findings["relaxed ordering mlx5_0"][0]["verdict"]
        equal(verdict, "ok" if size >= 0x6a else "skipped", f"{size} bytes", findings["result"])


@case("an empty machine is examined to the end")
def empty():
    changes = {name: None for name in HEALTHY}
    findings = examine(changes)
    expect(findings, "NUMA nodes", "ok", "1")
    expect(findings, "transparent hugepages", "absent")


@case("the text names each problem and ends in the counts")
def text():
    with Machine({"proc/self/limits": LIMITS.format(files=64, lock=8388608)}) as root:
        result = run([harness.TARGET, "doctor", "--doctor-root", root])
    equal(result.code, 1, "exit code", result)
    for part in ("  problem  open files", "  warning  memlock limit", "-> ulimit -n",
                 "1 problem, 1 warning, "):
        check(part in result.out, f"lacks {part!r}", result)


@case("a configuration file that others can change is a problem")
def config_file():
    with File("[target]\nnode = -1\n") as file:
        os.chmod(file.path, 0o600)
        findings = examine({}, "--config", file.path)
        expect(findings, "configuration file", "ok", file.path)
        os.chmod(file.path, 0o666)
        findings = examine({}, "--config", file.path)
        expect(findings, "configuration file", "problem", "chmod go-w")
        if os.geteuid() == 0:
            os.chmod(file.path, 0o644)
            os.chown(file.path, harness.NOBODY, harness.NOBODY)
            findings = examine({}, "--config", file.path)
            expect(findings, "configuration file", "warning", "65534")


@case("identities are held against what is served")
def identities():
    with File("[target]\nsegment = ram0=1M\n[identity alice]\nram0 = read\nram1 = write\n") as file:
        os.chmod(file.path, 0o600)
        findings = examine({}, "--config", file.path)
        expect(findings, "identities", "warning", "alice", "ram1", "not served")
        file.write("[target]\nsegment = ram0=1M\n[identity alice]\nram0 = read\n* = none\n")
        expect(examine({}, "--config", file.path), "identities", "ok", "2 rights")


def doctor(program, *args, **options):
    """The doctor on this machine: its findings by check."""
    result = run([program, "doctor", "--json", "-", *args], **options)
    try:
        report = json.loads(result.out)
    except ValueError:
        raise harness.Failure(f"no JSON\n{result}") from None
    equal(result.code, 1 if report["problems"] else 0, "exit code", result)
    return {finding["check"]: finding for finding in report["findings"]} | {"result": result}


@case("on this machine, as any user: it comes to its end")
def here():
    for program in (harness.TARGET, harness.INITIATOR):
        findings = doctor(program)
        for name in ("memlock limit", "open files", "clock source", "CPUs"):
            check(name in findings, f"{name} was not looked at", findings["result"])
    harness.need_root_to_change_user()
    for program in (harness.TARGET, harness.INITIATOR):
        doctor(program, preexec_fn=harness.as_nobody)


@case("whether a target could serve is tried: keys, cores")
def serving():
    name = unique()
    equal(doctor(harness.TARGET, "--segment", f"{name}=1M")["serving"]["verdict"], "ok", "serving")
    findings = doctor(harness.TARGET, "--segment", f"{name}=1M", "--pollers", 1, "--cores", 8000)
    equal(findings["serving"]["verdict"], "problem", "serving", findings["result"])
    check("8000" in findings["serving"]["seen"], "the CPU", findings["result"])


@case("a mistake in the command line is one for the doctor, too")
def usage():
    result = run([harness.TARGET, "doctor", "--segment", "ram0"])
    equal(result.code, 2, "exit code", result)
    result = run([harness.TARGET, "docter"])
    equal(result.code, 2, "exit code", result)


if __name__ == "__main__":
    harness.main()
