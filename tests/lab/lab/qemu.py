# SPDX-License-Identifier: Apache-2.0
"""The command line of QEMU for one guest.

Guests talk to the lab and to each other by sockets that they inherit: no ports, no names, nothing
that another user could connect to and nothing that is left behind.
"""
import base64

from . import kernel

HOST_FOLDER = "/"
COVERED = ("/tmp/", "/run/", "/dev/shm/")  # fresh in each guest
# Without what the kernel takes for fast and the emulation does slowly: rep movsb goes byte by byte,
# and a carry-less product, for the checksum of each RoCE packet, is a loop over its bits.
PROCESSOR = "max,-erms,-pclmulqdq"
# nowatchdog and rcu...: a guest may be stopped for minutes and go on. tsc...: or else the kernel takes
# the HPET, and each look at the clock leaves the emulated processor for microseconds.
# cryptomgr...: the kernel tests its ciphers at each boot.
KERNEL_OPTIONS = ("console=ttyS0 panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 "
                  "tsc=reliable clocksource=tsc mitigations=off no_timer_check audit=0 "
                  "net.ifnames=0 lockdown=none cryptomgr.notests")


def mac(guest_index, rail):
    return f"52:54:00:51:{guest_index:02x}:{rail:02x}"


def command(scenario, index, booted, folder, keep, sockets, output):
    """booted: the Kernel. sockets: descriptors 'kernel', 'output', 'control', 'monitor' and a list
    'rails', None where a card has no peer. output: a folder that the guest may write, or None."""
    return [kernel.find_tool("qemu-system-x86_64"), "-name", scenario.guests[index],
            "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
            "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR,
            *_processors(scenario), *_memory(scenario),
            "-kernel", booted.image, "-initrd", booted.initramfs,
            "-append", kernel_options(folder, keep),
            *_consoles(sockets), *_share("hostroot", HOST_FOLDER, readonly=True),
            *(_share("output", output, readonly=False) if output else ()),
            *_cards(scenario, index, sockets["rails"])]


def kernel_options(folder, keep):
    def encoded(text):
        return base64.b64encode(text.encode()).decode()
    kept = sorted({path for path in keep if path and path.startswith(COVERED)})
    return (f"{KERNEL_OPTIONS} lab.folder={encoded(folder)} "
            f"lab.keep={encoded(''.join(path + chr(10) for path in kept))}")


def _processors(scenario):
    return ["-smp", f"{scenario.cpus},sockets={scenario.nodes},"
                    f"cores={scenario.cpus // scenario.nodes},threads=1"]


def _memory(scenario):
    arguments = ["-m", f"{scenario.memory_mib}M"]
    size, cpus = scenario.memory_mib // scenario.nodes, scenario.cpus // scenario.nodes
    for node in range(scenario.nodes if scenario.nodes > 1 else 0):
        arguments += ["-object", f"memory-backend-ram,id=m{node},size={size}M",
                      "-numa", f"node,nodeid={node},memdev=m{node},"
                               f"cpus={node * cpus}-{(node + 1) * cpus - 1}"]
    for node in range(scenario.nodes):
        for other in range(node + 1, scenario.nodes):
            arguments += ["-numa", f"dist,src={node},dst={other},val=21"]
    return arguments


def _consoles(sockets):
    arguments = []
    for name in ("kernel", "output", "control"):
        arguments += ["-chardev", f"socket,id={name},fd={sockets[name]}",
                      "-serial", f"chardev:{name}"]
    return arguments + ["-chardev", f"socket,id=monitor,fd={sockets['monitor']}",
                        "-mon", "chardev=monitor,mode=control"]


def _share(tag, folder, readonly):
    return ["-fsdev", f"local,id={tag},path={_quoted(folder)},security_model=none,"
                      f"multidevs=remap,readonly={'on' if readonly else 'off'}",
            "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag},bus=pcie.0"]


def _quoted(text):
    """QEMU reads a doubled comma as one."""
    return text.replace(",", ",,")


def _cards(scenario, index, rails):
    """One card for each rail, on the bus of its node where there are several nodes."""
    arguments = []
    for node in range(scenario.nodes if scenario.nodes > 1 else 0):
        arguments += ["-device", f"pxb-pcie,id=px{node},bus_nr={64 + 32 * node},"
                                 f"numa_node={node},bus=pcie.0"]
    for rail, descriptor in enumerate(rails):
        bus = "pcie.0"
        if scenario.nodes > 1:
            bus = f"rp{rail}"
            arguments += ["-device", f"pcie-root-port,id={bus},chassis={rail + 1},slot={rail},"
                                     f"bus=px{scenario.nic_nodes[rail]}"]
        peer = f"hubport,id=rail{rail},hubid={rail}" if descriptor is None else \
            f"socket,id=rail{rail},fd={descriptor}"
        arguments += ["-netdev", peer,
                      "-device", f"virtio-net-pci,id=nic{rail},netdev=rail{rail},bus={bus},"
                                 f"mac={mac(index, rail)},host_mtu={scenario.mtu},romfile="]
    return arguments
