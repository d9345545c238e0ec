# SPDX-License-Identifier: Apache-2.0
"""A client that may read one segment and write none.

It may ask for what its budget allows, and leave unread what it asked for. Nothing of anybody's memory
changes through it, and what it does not read holds up nobody.
"""
import concurrent.futures
import contextlib
import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import re
import resource
import select
import struct
import termios
import threading
import time

import harness
from control import Control, Refused, framed
from harness import case, check, equal, eventually, need_root_to_change_user
from holder import Holder
from scene import OTHER_USER, attack, memory_within, scene_of
from wire import (DONE, NOTIFY, READ, READ_RIGHT, RESPONSE, WRITE, Data, Local, as_user, libc,
                  refusal)

UNREAD_CONNECTIONS, UNREAD_READS, UNREAD_BYTES = 20, 120, 512 << 10
UNREAD_BUDGET = UNREAD_CONNECTIONS * 400 << 10  # of 1.2 GB that were asked for
FLOODING, FLOOD_READS, FLOOD_BYTES = 8, 16, 512 << 10  # more than sockets hold
SESSIONS = 5000
CLIENTS = 8
MANY = 6000 if harness.SANITIZED else 60000  # of one client
BYTES_PER_SESSION = 2048
READER = {"rights": "read"}
LOCAL_READER = {"rights": "read", "neighbours": True}
F_ADD_SEALS, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE = 1033, 8, 16
MADV_REMOVE = 9
OPENS = 100  # of which the first are answered, and the others fit into the socket
DESCRIPTORS = 128  # that one connection may leave unread: half of BUDGET_DESCRIPTORS
FEW = 128          # descriptors of the target
STAYS, LEAVE_SECONDS = 8, 2  # segments, and what clients get to leave in
FALLOC_PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


def reader(scene):
    return Data(scene.intrude, scene.open_one, READ_RIGHT)


@attack("it opens nothing for writing", **READER)
def opens_for_writing(scene):
    with scene.intrude() as client:
        client.hello()
        for session, rights in enumerate((2, 3, 0, 4, 7, 0xffffffff), 1):
            client.open(scene.open_one, session, rights, "refused")
        for session, segment in enumerate((scene.target.name, "no-such"), 10):
            client.open(segment, session, READ_RIGHT, "refused")


@attack("WRITE and NOTIFY over tcp are refused, and change nothing", **READER)
def writes(scene):
    with reader(scene) as each:
        before = each.read(0, 8192)
        for kind in (WRITE, NOTIFY):
            for length in (0, 1, 4096, 524288):
                answer = each.carry_out(kind, length, 0, b"x" * length)
                equal(answer[:2], (DONE, -errno.EACCES), f"answer to {kind} of {length} bytes")
        equal(each.read(0, 8192), before, "the memory")


@attack("what a local reader of another user is passed can be changed in no way", **LOCAL_READER)
def local_writes(scene):
    need_root_to_change_user()

    def try_all():
        with Local(scene.open_one) as client:
            client.hello()
            with client.share(scene.open_one, rights=READ_RIGHT) as shared:
                fd, length = shared.segment_fd, len(shared.memory)
                mapped = libc("mmap", 0, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0,
                              result=ctypes.c_long)
                tried = {
                    "map": refusal(mmap.mmap, fd, length),
                    "protect": refusal(libc, "mprotect", mapped, length, 3),
                    "remove": refusal(libc, "madvise", mapped, length, MADV_REMOVE),
                    "write": refusal(os.pwrite, fd, b"x", 0),
                    "punch": refusal(libc, "fallocate", fd, FALLOC_PUNCH, 0, length),
                    "truncate": refusal(os.ftruncate, fd, 0),
                    "seal": refusal(fcntl.fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE),
                    "seal the future": refusal(fcntl.fcntl, fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE),
                    "reopen": refusal(os.open, f"/proc/self/fd/{fd}", os.O_RDWR),
                    "chmod": refusal(os.fchmod, fd, 0o777),
                }
                return [what for what, how in tried.items() if how == "done"]

    equal(as_user(OTHER_USER, try_all), [], "what a reader could do")


@attack("a client that asks for much and reads nothing holds up nobody", **READER)
def never_reads(scene):
    with reader(scene) as each:
        each.data.socket.settimeout(1)
        for _ in range(20000):
            if not each.data.send_bytes(each.head(READ, 65536)):
                break
        scene.serve_another()


@attack("READs without end over many connections, all taken: others have their turns", **READER)
def floods_with_reads(scene):
    over = threading.Event()
    taken = [0] * FLOODING

    def flood(index, each):
        while not over.is_set():
            heads = b"".join(each.head(READ, FLOOD_BYTES) for _ in range(FLOOD_READS))
            check(each.data.send_bytes(heads), "a data connection is closed")
            left = FLOOD_READS * (FLOOD_BYTES + RESPONSE.size)
            while left > 0:
                part = len(each.data.receive_bytes(min(left, FLOOD_BYTES)))
                check(part, "a data connection was closed")
                taken[index] += part
                left -= part

    with contextlib.ExitStack() as stack, scene.neighbour() as neighbour, \
            concurrent.futures.ThreadPoolExecutor(FLOODING) as threads:
        stack.callback(over.set)
        floods = [threads.submit(flood, index, stack.enter_context(reader(scene)))
                  for index in range(FLOODING)]
        for _ in range(20):
            neighbour.is_served()
        eventually(lambda: min(taken) > 0 or any(each.done() for each in floods),
                   lambda: f"taken on each: {taken}", scene.target)
        over.set()
        for each in floods:
            each.result()


def kill_many(scene, connect, uid=None):
    """Whoever has very many sessions is killed; others are served while they end."""
    scene.growth_kib = MANY // 10  # malloc keeps a little of what so many had
    with scene.neighbour() as neighbour:
        with memory_within(scene.target.pid, MANY * BYTES_PER_SESSION), \
                Holder(connect, scene.open_one, MANY, uid) as holder:
            neighbour.is_served()
            holder.kill()
            for _ in range(20):
                neighbour.is_served()


@attack(f"{MANY} sessions over tcp of a client that is killed: others notice nothing", **READER)
def many_remote_sessions(scene):
    kill_many(scene, scene.intrude)


@attack(f"{MANY} sessions over shm of a client that is killed: others notice nothing",
        **LOCAL_READER)
def many_local_sessions(scene):
    need_root_to_change_user()

    def areas():
        with open(f"/proc/{scene.target.pid}/maps") as file:
            return sum("sluice-client" in line for line in file)

    before = areas()
    kill_many(scene, lambda: Local(scene.open_one), OTHER_USER)
    harness.eventually(lambda: areas() == before, "clients' memory stays mapped", scene.target)


def limit_memory(pid, more):
    """Let a process take so much more memory, and no further."""
    with open(f"/proc/{pid}/status") as file:
        taken = 1024 * int(re.search(r"VmData:\s+(\d+) kB", file.read()).group(1))
    resource.prlimit(pid, resource.RLIMIT_DATA, (taken + more, resource.RLIM_INFINITY))


def beset_with_responses(scene, stack):
    """Data connections of one client, each with more asked for than the kernel takes, and nothing
    read of it. Returns the control connection, with a session for each."""
    control = stack.enter_context(scene.intrude())
    control.hello()
    for session in range(1, UNREAD_CONNECTIONS + 1):
        each = stack.enter_context(Data(scene.intrude, scene.open_one, READ_RIGHT, control, session))
        each.data.send_bytes(b"".join(each.head(READ, UNREAD_BYTES) for _ in range(UNREAD_READS)))
    return control


@attack("responses that are not read take no memory when their sessions are closed", **READER)
def unread_and_closed(scene):
    with contextlib.ExitStack() as stack, memory_within(scene.target.pid, UNREAD_BUDGET) as look:
        control = beset_with_responses(scene, stack)
        look()
        for session in range(1, UNREAD_CONNECTIONS + 1):
            control.send({"type": "close", "session": session, "operations": 0, "bytes_read": 0,
                          "bytes_written": 0})
        scene.serve_another()
        control.answer({"type": "usage"}, "usage")
        look()


@attack("responses that are not read take no memory when the right is taken away", **READER)
def unread_and_revoked(scene):
    with contextlib.ExitStack() as stack, memory_within(scene.target.pid, UNREAD_BUDGET) as look:
        control = beset_with_responses(scene, stack)
        scene.grant("none")
        scene.reload()
        scene.serve_another()
        look()
        check(told_that_it_is_over(control), "the reader was not told")
    scene.grant("read")
    scene.reload()


def told_that_it_is_over(control):
    return any(each["type"] == "closing" for each in iter(control.receive, None))


@case("where memory is limited the target turns clients away, and goes on serving")
def memory_limit():
    if harness.SANITIZED:
        raise harness.Skip("AddressSanitizer's own memory cannot be limited so")
    turned_away = 0
    with scene_of(**READER) as scene, contextlib.ExitStack() as stack:
        opens = many_opens(scene.open_one)
        limit_memory(scene.target.pid, 4 << 20)
        for _ in range(CLIENTS):
            with contextlib.suppress(Refused, harness.Failure):
                client = stack.enter_context(scene.intrude())
                client.hello()
                sender = threading.Thread(target=client.send_bytes, args=(opens,))
                sender.start()
                answers = itertools.takewhile(bool, (client.receive() for _ in range(SESSIONS)))
                turned_away += sum(each["type"] == "opened" for each in answers) < SESSIONS
                sender.join()
        check(turned_away > 0, "there was memory for all")
        stack.close()
        limit_memory(scene.target.pid, 1 << 30)
        scene.serve_another()
        scene.client_was_served()


def many_opens(segment):
    return b"".join(framed({"type": "open", "session": session, "segment": segment,
                            "rights": READ_RIGHT, "transports": ["tcp"]})
                    for session in range(SESSIONS))


@attack("of the sessions that the configuration limits it gets so many, on all its connections",
        rights="read\nmax-sessions = 5")
def many_sessions(scene):
    with scene.intrude() as one, scene.intrude() as other:
        for client, sessions in ((one, range(3)), (other, range(2))):
            client.hello()
            for session in sessions:
                client.open(scene.open_one, session, READ_RIGHT)
        for client in (one, other):
            answer = client.open(scene.open_one, 9, READ_RIGHT, "refused")
            equal(answer["error"], errno.EDQUOT, f"error of {answer}")
            check("max-sessions" in answer["text"], f"text of {answer}")
        scene.serve_another()
        one.send({"type": "close", "session": 0, "operations": 0, "bytes_read": 0,
                  "bytes_written": 0})
        one.answer({"type": "usage"}, "usage")
        other.open(scene.open_one, 9, READ_RIGHT)


@attack("a local client that leaves its descriptors in its socket gets no more of them",
        **LOCAL_READER)
def receives_nothing(scene):
    need_root_to_change_user()
    asked, ask_on = os.pipe()
    go_on, let_go_on = os.pipe()

    def open_many():
        with Local(scene.open_one) as client:
            client.hello()
            for session in range(OPENS):
                client.send({"type": "open", "session": session, "segment": scene.open_one,
                             "rights": READ_RIGHT, "transports": ["shm"]})
            os.write(ask_on, b"x")
            os.read(go_on, 1)
            waiting = struct.unpack("i", fcntl.ioctl(client.socket, termios.FIONREAD, bytes(4)))[0]
            answers = [client.receive() for _ in range(OPENS)]
            return waiting / len(framed(answers[0])), [answer["type"] for answer in answers]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = pool.submit(as_user, OTHER_USER, open_many)
        try:
            eventually(lambda: answers.done() or select.select([asked], [], [], 0)[0],
                       "the client does not get to ask", scene.target)
            scene.serve_another()
        finally:
            os.write(let_go_on, b"x")
        waiting, answers = answers.result()
    for fd in (asked, ask_on, go_on, let_go_on):
        os.close(fd)
    check(1 < waiting < DESCRIPTORS // 2, f"{waiting} were opened", scene.target)
    equal(set(answers), {"opened"}, "answers, once it reads")
    scene.serve_another()


@attack(f"with {FEW} descriptors, one that takes as many connections as it gets keeps nobody out",
        preexec_fn=harness.limits(NOFILE=FEW), **READER)
def takes_all_descriptors(scene):
    with contextlib.ExitStack() as stack:
        for _ in range(2 * FEW):
            with contextlib.suppress(OSError, harness.Failure):
                stack.enter_context(scene.intrude()).hello()
        scene.serve_another()


@attack(f"with {FEW} descriptors, a local one that opens a segment on each connection keeps nobody out",
        preexec_fn=harness.limits(NOFILE=FEW), **LOCAL_READER)
def opens_on_all_connections(scene):
    need_root_to_change_user()
    has_them, say_so = os.pipe()
    go_on, let_go_on = os.pipe()

    def open_on_all():
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(FEW // 2 - len(scene.fds) // 2 + 4):
                with contextlib.suppress(OSError, harness.Failure):
                    clients.append(stack.enter_context(Local(scene.open_one)))
                    clients[-1].hello()
            for client in clients:
                client.send({"type": "open", "session": 1, "segment": scene.open_one,
                             "rights": READ_RIGHT, "transports": ["shm"]})
            answers = [client.receive() for client in clients]
            os.write(say_so, b"x")
            os.read(go_on, 1)
            return [answer["type"] for answer in answers if answer]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = pool.submit(as_user, OTHER_USER, open_on_all)
        try:
            eventually(lambda: answers.done() or select.select([has_them], [], [], 0)[0],
                       "the client does not get to open", scene.target)
            scene.serve_another()
        finally:
            os.write(let_go_on, b"x")
        answers = answers.result()
    for fd in (has_them, say_so, go_on, let_go_on):
        os.close(fd)
    check("refused" in answers, f"there were descriptors for all: {answers}")


@case("a target that is stopped waits for one that does not leave once, not for each segment")
def does_not_leave():
    names = [harness.unique(f"stay{i}") for i in range(STAYS)]
    flags = [flag for name in names for flag in ("--segment", f"{name}=64K")]
    with harness.Target("--listen", "127.0.0.1:0", *flags, size="64K") as target:
        port = int(target.wait_for(r"@127\.0\.0\.1:(\d+)").group(1))
        with Control(("127.0.0.1", port)) as client:
            client.hello()
            for session, name in enumerate(names):
                client.open(name, session, READ_RIGHT)
            begun = time.monotonic()
            target.stop()
            took = time.monotonic() - begun
    check(took < LEAVE_SECONDS * STAYS / 2, f"it took {took:.1f} s")


if __name__ == "__main__":
    harness.main()
