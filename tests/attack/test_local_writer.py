# SPDX-License-Identifier: Apache-2.0
"""A client that may write a segment in shared memory.

It can take the segment's pages away. The segment is lost then, and all who have it open hear so;
nothing else ends: no process, no other segment, nobody who is busy with one. Where nobody is let
write in shared memory, nobody can.
"""
import contextlib
import ctypes
import fcntl
import mmap
import os
import re

import harness
from harness import Process, Skip, case, check, equal, need_root_to_change_user
from scene import OTHER_USER, SEGMENT_BYTES, attack, scene_of
from wire import READ_RIGHT, WRITE_RIGHT, Local, as_user, libc, refusal

PAGE_2M = 2 << 20
PAGES = 2 * SEGMENT_BYTES // PAGE_2M + 16  # two segments, and what else takes some
TAKES = 100
MAP_HUGETLB = 0x40000
MADV_REMOVE = 9
FALLOC_PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE = 1, 8, 16


# ---- pages that are taken away ----

def free_hugepages():
    with open("/proc/meminfo") as file:
        return int(re.search(r"HugePages_Free:\s+(\d+)", file.read()).group(1))


def reserve_hugepages(more):
    with open("/proc/sys/vm/nr_hugepages", "r+") as file:
        wanted = int(file.read()) + more
        file.seek(0)
        file.write(str(wanted))


@contextlib.contextmanager
def hugepages(count):
    """So many of them are free when the block begins. (What is reserved makes good first for pages
    in use that were reserved by nobody any more.)"""
    added = 0
    try:
        for _ in range(4):
            missing = max(0, count - free_hugepages())
            reserve_hugepages(missing)
            added += missing
        if free_hugepages() < count:
            raise Skip("the machine has no memory left for hugepages")
        yield
    except PermissionError:
        raise Skip("only root can reserve hugepages") from None
    finally:
        if added:
            reserve_hugepages(-added)


def take_free_hugepages(stack):
    """By somebody who needs them: they are reserved for him, whether or not he touches them."""
    with contextlib.suppress(OSError):
        while True:
            stack.enter_context(mmap.mmap(-1, PAGE_2M, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS |
                                          MAP_HUGETLB))


def punch(shared):
    libc("fallocate", shared.segment_fd, FALLOC_PUNCH, 0, shared.length)


def remove(shared):
    libc("madvise", ctypes.addressof(ctypes.c_char.from_buffer(shared.memory)), shared.length,
         MADV_REMOVE)


class Writer(contextlib.ExitStack):
    """A client in shared memory that means harm. shared: what it has mapped."""

    def __init__(self, scene):
        super().__init__()
        local = self.enter_context(Local(scene.open_one))
        local.hello()
        self.shared = self.enter_context(local.share(scene.open_one))


def victim(scene, *flags):
    """Somebody who reads the segment all the time, and should hear that it is lost."""
    process = Process(harness.INITIATOR, "--workload", "read", "--size", "256K", "--threads", "1",
                      "--duration", "600", "--warmup", "0", "--no-use_vram", "--progress", *flags)
    process.wait_for("measuring", "err")
    return process


def hears(process, what):
    try:
        result = process.finish()
    except harness.Failure:
        raise harness.Failure(f"a client over {what} does not hear of it") from None
    equal(result.code, 1, f"exit code of a client over {what}, which ended with: "
                          f"{result.err[-500:]!r}")


def beset_pages(take):
    flags = ["--page", "2M", "--pollers", "1"]
    with hugepages(PAGES), scene_of(flags=flags) as scene, \
            victim(scene, "--remote_segment", scene.open_one, "--require", "shm") as inline, \
            victim(scene, "--remote_segment", scene.open_one, "--require", "shm", "--pollers",
                   "1") as polled, \
            victim(scene, "--remote_segment", scene.remote(scene.open_one), "--require", "tcp",
                   "--psk", scene.keys) as remote, \
            scene.neighbour() as neighbour, Writer(scene) as writer:
        with contextlib.ExitStack() as taken:
            for _ in range(TAKES):  # readers fill the holes again, as long as a page is left
                take(writer.shared)
                take_free_hugepages(taken)
            hears(inline, "shm, inline")
            hears(polled, "shm, by a poller")
            hears(remote, "tcp")
            scene.target.wait_for(f"{scene.open_one} has lost its memory", "err")
            with Local(scene.open_one) as late:
                late.hello()
                refused = late.open(scene.open_one, 1, READ_RIGHT, "refused")
                check("has lost its memory" in refused["text"], f"a late client: {refused}")
            neighbour.is_served()
            scene.serve_another()
        scene.client_was_served()
        equal(scene.target.process.poll(), None, "exit code of the target", scene.target)


@case("hugepages taken away by fallocate: the segment is lost, and nothing and nobody else")
def punched_hugepages():
    beset_pages(punch)


@case("hugepages taken away by madvise: the segment is lost, and nothing and nobody else")
def removed_hugepages():
    beset_pages(remove)


@attack("ordinary pages, or hugepages of which some are free: what is taken away reads as zeros")
def punched_pages(scene):
    with Writer(scene) as one, Writer(scene) as other, scene.data() as remote:
        for take in (punch, remove):
            for _ in range(3):
                one.shared.write(8192, b"x" * 4096)
                take(one.shared)
                for reader in (one.shared, other.shared, remote):
                    equal(reader.read(8192, 4096), bytes(4096), "what was taken away")
        other.shared.write(8192, b"y" * 4096)
        equal(remote.read(8192, 4096), b"y" * 4096, "what was written after that")


# ---- who gets memory that he can write ----

@attack("another user who may write, and is no --shm-writer, is passed nothing that he can write",
        neighbours=True)
def not_named(scene):
    need_root_to_change_user()

    def try_all():
        with Local(scene.open_one) as client:
            client.hello()
            refused = [client.open(scene.open_one, session, rights, "refused")["text"]
                       for session, rights in enumerate((WRITE_RIGHT, READ_RIGHT | WRITE_RIGHT))]
            passed = len(client.fds)
            with client.share(scene.open_one, 7, READ_RIGHT) as shared:
                again = refusal(os.open, f"/proc/self/fd/{shared.segment_fd}", os.O_RDWR)
                return [passed, again, all("--shm-writer" in text for text in refused)]

    equal(as_user(OTHER_USER, try_all), [0, "EACCES", True], "passed, reopened, and told why")


@attack("another user who is a --shm-writer writes, and is outlived by others", neighbours=True,
        flags=["--shm-writer", str(OTHER_USER)])
def named(scene):
    need_root_to_change_user()

    def punch_all():
        with Local(scene.open_one) as client:
            client.hello()
            with client.share(scene.open_one) as shared:
                shared.write(4096, b"x" * 4096)
                punch(shared)
                return shared.read(4096, 4096) == bytes(4096)

    check(as_user(OTHER_USER, punch_all), "what was taken away")



@attack("no writer keeps the next one out by a seal")
def sealed_by_a_writer(scene):
    with Writer(scene) as writer:
        for seal in (F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL):
            equal(refusal(fcntl.fcntl, writer.shared.segment_fd, F_ADD_SEALS, seal), "EPERM",
                  f"seal {seal}")
    with Writer(scene) as writer:
        writer.shared.write(0, b"y" * 4096)


@case("where nobody writes in shared memory, not even our own user reopens, maps or punches")
def nobody_writes():
    with scene_of(flags=["--shm-writer", "none"]) as scene, Local(scene.open_one) as local:
        local.hello()
        refused = local.open(scene.open_one, 1, WRITE_RIGHT, "refused")
        check("sealed" in refused["text"], f"a writer: {refused}")
        with local.share(scene.open_one, 2, READ_RIGHT) as shared:
            check(fcntl.fcntl(shared.segment_fd, F_GET_SEALS) & F_SEAL_FUTURE_WRITE, "it is not sealed")
            again = os.open(f"/proc/self/fd/{shared.segment_fd}", os.O_RDWR)
            try:
                equal(refusal(libc, "fallocate", again, FALLOC_PUNCH, 0, shared.length), "EPERM",
                      "punching")
                equal(refusal(mmap.mmap, again, shared.length), "EPERM", "mapping")
                check(refusal(os.pwrite, again, b"x", 0) != "done", "it was written")
            finally:
                os.close(again)
        scene.client_was_served()


if __name__ == "__main__":
    harness.main()
