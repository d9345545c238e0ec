# SPDX-License-Identifier: Apache-2.0
"""The systemd unit: that systemd understands it, and that the target works in a like sandbox.

There is no service manager in a test: what the unit asks for is put up by hand from the unit's own
lines (no new privileges, another user, no capabilities, all file systems read-only, no writable
and executable memory, system calls and address families by filter), and the target is run in it.
"""
import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

import harness
from harness import Process, Skip, case, check, equal, initiator, run, unique

UNIT = os.environ.get("SLUICE_UNIT", "")
HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h")
AUDIT_ARCH_X86_64 = 0xC000003E
SECCOMP_ALLOW, SECCOMP_EPERM, SECCOMP_EAFNOSUPPORT = 0x7FFF0000, 0x00050001, 0x00050061
CLONE_NEWNS, CLONE_NEWIPC = 0x00020000, 0x08000000
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_MDWE = 38, 22, 24, 65

libc = ctypes.CDLL(None, use_errno=True)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")


def setting(name):
    """All values of a directive of the unit, in order."""
    with open(UNIT) as file:
        return re.findall(rf"^{name}=(.*)$", file.read(), re.MULTILINE)


@case("systemd-analyze verify has nothing to say about the unit")
def verify():
    need("systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "sluice-target.service")
        with open(UNIT) as file, open(path, "w") as copy:
            copy.write(re.sub(r"^ExecStart=\S+", f"ExecStart={os.path.abspath(harness.TARGET)}",
                              file.read(), flags=re.MULTILINE))
        result = run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path])
    said = [line for line in result.err.splitlines() if "sluice" in line]
    equal(said, [], "messages", result)
    equal(result.code, 0, "exit code", result)


@case("systemd-analyze security: the exposure of the unit is low")
def exposure():
    need("systemd-analyze")
    result = run(["systemd-analyze", "security", "--offline=true", "--threshold=25", UNIT])
    if "Failed" in result.err or "nrecognized" in result.err:
        raise Skip(result.err.strip().splitlines()[-1])
    equal(result.code, 0, "exposure above 2.5", result)


@case("RDMA can be used under the unit: its files, netlink to find them, and no memlock limit")
def rdma():
    equal(setting("PrivateDevices"), ["no"], "PrivateDevices=, which hides /dev/infiniband")
    equal(setting("DevicePolicy"), ["closed"], "DevicePolicy=")
    equal(sorted(setting("DeviceAllow")),
          ["/dev/infiniband/rdma_cm rw", "char-infiniband_verbs rw"], "DeviceAllow=")
    check("AF_NETLINK" in setting("RestrictAddressFamilies")[0].split(), "no netlink")
    equal(setting("LimitMEMLOCK"), ["infinity"], "LimitMEMLOCK=")


def system_calls():
    """Numbers of the system calls that SystemCallFilter= lets through."""
    need("systemd-analyze")
    header = next((path for path in HEADERS if os.path.exists(path)), None)
    if not header:
        raise Skip("no header with the numbers of system calls")
    with open(header) as file:
        numbers = {name: int(number) for name, number in
                   re.findall(r"#define __NR_(\w+)\s+(\d+)", file.read())}

    def names(group):
        out = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True,
                             stdout=subprocess.PIPE).stdout.decode()
        found = set()
        for line in out.splitlines()[1:]:
            word = line.strip()
            if word.startswith("@"):
                found |= names(word)
            elif word and not word.startswith("#"):
                found.add(word)
        return found
    allowed = set()
    for value in setting("SystemCallFilter"):
        for word in value.lstrip("~").split():
            if value.startswith("~"):
                allowed -= names(word)
            else:
                allowed |= names(word) | names("@default")
    return sorted(numbers[name] for name in allowed if name in numbers), numbers


def seccomp_filter():
    """A BPF program as systemd would load it: the list of calls, and the families of socket()."""
    allowed, numbers = system_calls()
    families = [getattr(socket, name) for name in setting("RestrictAddressFamilies")[0].split()]
    program = []

    def add(code, true, false, value):
        program.append(struct.pack("<HBBI", code, true, false, value))
    add(0x20, 0, 0, 4)                          # load the architecture
    add(0x15, 1, 0, AUDIT_ARCH_X86_64)
    add(0x06, 0, 0, SECCOMP_EPERM)
    add(0x20, 0, 0, 0)                          # load the number of the call
    add(0x15, 0, len(families) + 3, numbers["socket"])
    add(0x20, 0, 0, 16)                         # load the family
    for i, family in enumerate(families):
        add(0x15, len(families) - i, 0, int(family))
    add(0x06, 0, 0, SECCOMP_EAFNOSUPPORT)
    add(0x06, 0, 0, SECCOMP_ALLOW)
    for number in allowed:
        add(0x15, 0, 1, number)
        add(0x06, 0, 0, SECCOMP_ALLOW)
    add(0x06, 0, 0, SECCOMP_EPERM)
    return b"".join(program), len(program)


def must(result, what):
    if result:
        raise OSError(ctypes.get_errno(), what)


def mount(source, target, kind, flags, data=None):
    must(libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, flags,
                    data.encode() if data else None), f"mount {target}")


def read_only(runtime):
    """ProtectSystem=strict and PrivateTmp=: nothing can be written but the runtime folder."""
    must(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC), "unshare")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount(runtime, runtime, None, MS_BIND | MS_REC)
    with open("/proc/self/mountinfo") as file:
        points = sorted({line.split()[4] for line in file}, key=len)
    for point in points:
        if point != runtime and not point.startswith(("/proc", "/sys")):
            # What cannot be remounted here is a mount that a container's runtime has locked.
            libc.mount(None, point.encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID,
                       None)


def need_namespaces():
    child = os.fork()
    if not child:
        os._exit(1 if libc.unshare(CLONE_NEWNS | CLONE_NEWIPC) else 0)
    if os.waitpid(child, 0)[1]:
        raise Skip("this container lets root make no mount namespace")


def sandbox(runtime):
    """A preexec_fn that puts up what the unit asks for."""
    if os.geteuid() == 0:
        need_namespaces()
    program, count = seccomp_filter()
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", count, ctypes.addressof(buffer))
    header_buffer = ctypes.create_string_buffer(header)

    def apply():
        if os.geteuid() == 0:
            read_only(runtime)
            for capability in range(64):
                libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            harness.as_nobody()
        must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # Linux 6.3; before it there was no such thing
        must(libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_void_p(ctypes.addressof(header_buffer)), 0, 0),
             "seccomp")
    apply.keep = buffer
    return apply


def run_in_sandbox(folder, *args, **options):
    os.chmod(folder, 0o755)
    if os.geteuid() == 0:
        harness.need_root_to_change_user()
        os.chown(folder, harness.NOBODY, harness.NOBODY)
    environment = dict(os.environ)
    if harness.SANITIZED:
        environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":detect_leaks=0"  # it looks by ptrace, which is forbidden
    return Process(harness.TARGET, *args, preexec_fn=sandbox(folder), env=environment, **options)


@case("the target works in the sandbox of the unit: it serves, reloads and ends")
def works():
    name = unique()
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "target.conf")
        with open(config, "w") as file:
            file.write(f"[target]\nsegment = {name}=16M\nsocket = {folder}/target.sock\n"
                       "poll = adaptive\npollers = 1\nlisten = 127.0.0.1:0\n"
                       + (f"allow-user = {os.geteuid()}\nshm-writer = {os.geteuid()}\n"
                          if os.geteuid() else ""))
        with run_in_sandbox(folder, "--config", config) as target:
            listen = target.wait_for(r"^ready: .* listen=(\S+)$").group(1)
            check_sandbox(target.pid)
            for remote in (name, f"{name}@{folder}/target.sock", f"{name}@{listen}"):
                result = initiator("--remote_segment", remote, "--workload", "mix",
                                   "--integrity_check", "--size", "4K", "--allow-user", "nobody")
                equal(result.code, 0, f"by {remote}", result, target)
            target.signal(signal.SIGHUP)
            target.wait_for(r"^reloaded ")
            target.signal(signal.SIGTERM)
            result = target.finish()
            equal(result.code, 0, "exit code", result)
            check("16 MiB" in result.out, "what was served", result)


def check_sandbox(pid):
    """That the sandbox is really there."""
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    equal(status["NoNewPrivs"].strip(), "1", "no new privileges")
    equal(status["Seccomp"].strip(), "2", "the filter")
    equal(int(status["CapEff"], 16), 0, "capabilities")
    check(status["Uid"].split()[0] != "0", "it runs as root")
    if os.geteuid() == 0:
        with open(f"/proc/{pid}/mountinfo") as file:
            roots = [line.split()[5] for line in file if line.split()[4] == "/"]
        check(roots and all(options.startswith("ro") for options in roots),
              f"/ can be written: {roots}")


@case("the sandbox holds: what the unit forbids fails in it")
def holds():
    need("python3")
    script = ("import socket, os, ctypes\n"
              "def errno(call):\n"
              "    try:\n        call()\n    except OSError as error:\n        return error.errno\n"
              "print(errno(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),\n"
              "      errno(lambda: os.mkdir('/usr/sluice-test')),\n"
              "      errno(lambda: os.chroot('/')),\n"
              "      errno(lambda: socket.socket(socket.AF_INET)),\n"
              "      errno(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)))\n")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        result = run(["python3", "-c", script], preexec_fn=sandbox(folder))
    equal(result.code, 0, "exit code", result)
    packet, make, chroot, inet, netlink = result.out.split()
    equal((packet, chroot, inet, netlink), ("97", "1", "None", "None"), "errors", result)
    check(make in ("13", "30"), "a folder could be made", result)


if __name__ == "__main__":
    harness.main()
