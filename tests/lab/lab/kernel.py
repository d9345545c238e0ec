# SPDX-License-Identifier: Apache-2.0
"""The guests' kernel: Debian's own package, downloaded and unpacked aside, never installed.

The cache holds one folder for each kernel: vmlinuz, vmlinux, initramfs, lib/modules/VERSION. It is
made under a temporary name and renamed when it is complete, so what is there can be used.
"""
import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile

from . import Lacking

try:
    import lzma
except ImportError:  # of a Python that was built without it
    lzma = None

META_PACKAGE = "linux-image-amd64"
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "modprobe": "kmod", "depmod": "kmod",
         "busybox": "busybox-static", "cpio": "cpio", "setsid": "util-linux", "ip": "iproute2",
         "dpkg-deb": "dpkg", "apt-get": "apt"}
# What must be loaded before the root file system is there; the rest is loaded from it.
EARLY_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net")
# Drivers that no guest needs: two thirds of the package.
LEFT_OUT = ("drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/net/ethernet",
            "drivers/scsi", "drivers/staging", "drivers/usb", "drivers/iio", "drivers/hid",
            "drivers/input", "drivers/isdn", "drivers/mtd", "drivers/hwmon", "sound", "fs/ocfs2",
            "fs/xfs", "fs/btrfs")
# Of a bzImage: Documentation/x86/boot.rst of Linux, setup_sects and payload_offset.
SETUP_SECTORS, PAYLOAD = 0x1f1, 0x248
PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen")  # XEN_ELFNOTE_PHYS32_ENTRY, of 8 bytes
INIT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guest", "init")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
DOWNLOAD_SECONDS = 600


def find_tool(name):
    return shutil.which(name, path=PATH)


def check_tools(tools):
    """tools: command to package."""
    lacking = sorted({package for tool, package in tools.items() if not find_tool(tool)})
    if lacking:
        names = " ".join(lacking)
        raise Lacking(f"not installed: {names}; apt-get install {names}")


def default_cache():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("SLUICE_LAB_CACHE") or os.path.join(home, "sluice", "lab")


class Kernel:
    """A kernel that is ready to boot: .image, .initramfs, .folder (for modprobe -d), .version."""

    def __init__(self, folder):
        self.folder = folder
        self.packed = os.path.join(folder, "vmlinuz")
        self.unpacked = os.path.join(folder, "vmlinux")
        self.initramfs = os.path.join(folder, "initramfs-" + _fingerprint())
        with open(os.path.join(folder, "version"), encoding="utf-8") as file:
            self.version = file.read().strip()

    @property
    def image(self):
        return self.unpacked if os.path.exists(self.unpacked) else self.packed

    def unpack(self):
        """An emulated processor unpacks it for seconds, at each boot. What is packed otherwise than
        by xz, or has no entry for an unpacked kernel (PVH), boots as it is."""
        if not lzma:
            return
        with open(self.packed, "rb") as file:
            packed = file.read()
        sectors = packed[SETUP_SECTORS] or 4
        offset, length = struct.unpack_from("<II", packed, PAYLOAD)
        begin = (sectors + 1) * 512 + offset
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        try:
            image = unpacker.decompress(packed[begin:begin + length])
        except lzma.LZMAError:
            return
        if not unpacker.eof or PVH_NOTE not in image:
            return
        with open(self.unpacked + ".part", "wb") as file:
            file.write(image)
        os.rename(self.unpacked + ".part", self.unpacked)


def prepare(cache, say):
    """Give back the newest kernel of the cache; the first time, download one into it."""
    check_tools(TOOLS)
    try:
        os.makedirs(cache, exist_ok=True)
        with open(os.path.join(cache, "lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = _newest(cache) or _fetch(cache, say)
            kernel = Kernel(folder)
            if not os.path.exists(kernel.initramfs):
                _make_initramfs(kernel)
            if not os.path.exists(kernel.unpacked):
                kernel.unpack()
            return kernel
    except OSError as error:
        raise Lacking(f"the cache {cache} is not usable: {error}; name another folder with "
                      "--cache") from None


def _newest(cache):
    def number(folder):
        return [int(part) for part in re.findall(r"\d+", os.path.basename(folder))]
    found = sorted(glob.glob(os.path.join(cache, "linux-*")), key=number)
    return found[-1] if found else None


def _fetch(cache, say):
    package = _package_name()
    for old in glob.glob(os.path.join(cache, "unpack-*")):  # of one that was killed
        shutil.rmtree(old, ignore_errors=True)
    say(f"downloading {package} into {cache}, once")
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=cache) as scratch:
        _call(["apt-get", "-q", "download", package], cwd=scratch)
        tree = os.path.join(scratch, "tree")
        os.mkdir(tree)
        _unpack(glob.glob(os.path.join(scratch, "*.deb"))[0], tree)
        version = package.removeprefix("linux-image-")
        _call(["depmod", "-b", tree, version])
        os.rename(os.path.join(tree, "boot", "vmlinuz-" + version),
                  os.path.join(tree, "vmlinuz"))
        with open(os.path.join(tree, "version"), "w", encoding="utf-8") as file:
            file.write(version + "\n")
        folder = os.path.join(cache, "linux-" + version)
        os.rename(tree, folder)
    return folder


def _package_name():
    with contextlib.suppress(Lacking):
        text = _call(["apt-cache", "depends", META_PACKAGE])
        match = re.search(r"Depends: (linux-image-[0-9]\S*-amd64)", text)
        if match:
            return match.group(1)
    raise Lacking(f"apt knows no package {META_PACKAGE}: run apt-get update, with Debian among its "
                  "sources")


def _unpack(deb, tree):
    excluded = [f"--exclude=./lib/modules/*/kernel/{folder}/*" for folder in LEFT_OUT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as source:
        _call(["tar", "-x", "-C", tree, "--no-same-owner", *excluded, "./boot", "./lib"],
              stdin=source.stdout)


def _make_initramfs(kernel):
    """Pack busybox, the early modules in the order of their loading, and guest/init."""
    for old in glob.glob(os.path.join(kernel.folder, "initramfs-*")):
        os.unlink(old)
    with tempfile.TemporaryDirectory(prefix="initramfs-", dir=kernel.folder) as tree:
        for folder in ("bin", "modules"):
            os.mkdir(os.path.join(tree, folder))
        shutil.copy(find_tool("busybox"), os.path.join(tree, "bin", "busybox"))
        shutil.copy(INIT, os.path.join(tree, "init"))
        os.chmod(os.path.join(tree, "init"), 0o755)
        for number, module in enumerate(_load_order(kernel)):
            name = f"{number:03}-{os.path.basename(module)}"
            shutil.copy(module, os.path.join(tree, "modules", name))
        names = sorted(os.path.relpath(os.path.join(at, name), tree)
                       for at, folders, files in os.walk(tree) for name in folders + files)
        _pack(tree, names, kernel.initramfs)


def _pack(tree, names, path):
    with open(path + ".part", "wb") as file:
        done = subprocess.run([find_tool("cpio"), "--quiet", "-o", "-H", "newc", "-R", "0:0"],
                              cwd=tree, input="\n".join(names).encode(), stdout=file,
                              stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Lacking(f"cpio failed: {done.stderr.decode(errors='replace').strip()}")
    os.rename(path + ".part", path)


def _load_order(kernel):
    order = []
    for name in EARLY_MODULES:
        text = _call(["modprobe", "-S", kernel.version, "-d", kernel.folder, "--show-depends",
                      name])
        order += [line.split()[1] for line in text.splitlines() if line.startswith("insmod")]
    return list(dict.fromkeys(order))


def _fingerprint():
    """Changes when the initramfs has to be made anew."""
    digest = hashlib.sha256(" ".join(EARLY_MODULES).encode())
    for path in (INIT, find_tool("busybox")):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _call(command, **options):
    """Run a command that must succeed; its output."""
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=DOWNLOAD_SECONDS, check=False,
                              **options)
    except subprocess.TimeoutExpired:
        raise Lacking(f"{' '.join(command)} did not end in {DOWNLOAD_SECONDS} s") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise Lacking(f"{' '.join(command)} failed: {text.strip()[-400:]}")
    return text
