"""Run a function in a forked child under limits of time and output, and report how the child ended.

The child leads a session of its own and is not alive afterwards, nor is anything that descends from it. Its CPU time is
read from outside, where the child cannot reset it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from cptlab.judging.workers.libc import PR_SET_PDEATHSIG, libc, libc_holding_the_gil
from cptlab.judging.workers.messages import HangUp

_CHUNK = 1 << 16
_SOCKET_WAIT = 20_000  # microseconds that a reporter waits for the child before it reports what it has
_LOOK = 0.1  # seconds between two looks at a child's clock
_ASLEEP = 0.02  # a child that got less of the time than this was asleep


class Ending(NamedTuple):
    """The report of a child, and how the child ended.

    `cause`: exit, signal; cpu, sleep, wall (a time limit); flood (the report is too long); lost (the reporter did not
    come to its end). `code`: exit status or signal number.
    """

    data: bytes
    cause: str
    code: int


class Reporter(NamedTuple):
    """A process beside the child that reports on it. `start(connection, report)` hands it the descriptors of the next run."""

    pid: int
    start: Callable[[int, int], None]


def run_forked(
    child: Callable[[int], None],
    *,
    cpu_seconds: float,
    wall_seconds: float,
    max_bytes: int,
    budgets: int = 1,
    reporter: Reporter | None = None,
    spared: Sequence[int] = (),
) -> Ending:
    """Fork, run `child(fd)` there, and return what it wrote to `fd` before it ended or was killed.

    With a `reporter`, `fd` is the child's end of a socket whose other end the reporter gets. Its report is
    then the one that is returned, and the child is killed when the reporter closes its report. `spared` are other
    children of this process, which live on.

    `cpu_seconds` bounds the CPU time of child and reporter plus the time in which both slept: neither ran, nor waited for
    a CPU or a disk. So a program cannot hold its place by doing nothing, and a loaded machine does not count against it.
    `wall_seconds` is the backstop. Both start anew with each complete line of the report, for at most `budgets` budgets
    in all. `max_bytes` bounds the report. HangUp where the main process goes away.
    """
    reader, writer = os.pipe()
    if reporter is None:
        pid = _fork(lambda: child(writer), reader)
    else:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, _SOCKET_WAIT))
        pid = _fork(lambda: child(theirs.fileno()), reader)
        reporter.start(ours.fileno(), writer)
        ours.close()
        theirs.close()
    os.close(writer)
    beside = [reporter.pid] if reporter else []
    try:
        data, cause = _watch(pid, beside, reader, cpu_seconds, wall_seconds, max_bytes, budgets)
    finally:
        code = _kill_all(pid, {*beside, *spared})
        os.close(reader)
    if cause == "end":
        cause = "exit" if code >= 0 else "signal"
    return Ending(data, cause, abs(code))


def _fork(action: Callable[[], None], foreign: int) -> int:
    server = os.getpid()
    pid = libc_holding_the_gil.fork()
    if pid == 0:
        try:
            os.setsid()
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == server:
                os.close(foreign)
                action()
            os._exit(0)
        finally:
            os._exit(70)
    return pid


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process that has not been reaped (its clock, as clock_getcpuclockid(3) makes it)."""
    return time.clock_gettime((~pid << 3) | 2)


def _waits(pids: list[int]) -> tuple[float, bool] | None:
    """Return the seconds that the threads were ready and waited for a CPU, and whether all are asleep now.

    A thread that waits for a disk or has ended is not asleep. None where the kernel does not say.
    """
    delay, asleep = 0, True
    try:
        for pid in map(_number_in_proc, pids):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                    delay += int(file.read().split()[1])
                with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                    asleep = asleep and file.read().rpartition(b")")[2].split()[0] in (b"S", b"T", b"t")
    except (OSError, IndexError):
        return None
    return delay / 1e9, asleep


def _number_in_proc(pid: int) -> int:
    """Return the number of a child of this process in /proc, which may be that of outer namespaces."""
    own = os.readlink("/proc/self")
    if own == str(os.getpid()):
        return pid
    with open(f"/proc/{own}/task/{own}/children") as file:
        children = file.read().split()
    for child in children:
        with open(f"/proc/{child}/status") as file:
            if any(line.split()[-1] == str(pid) for line in file if line.startswith("NSpid:")):
                return int(child)
    raise ProcessLookupError


def _watch(
    pid: int, beside: list[int], reader: int, cpu_seconds: float, wall_seconds: float, max_bytes: int, budgets: int
) -> tuple[bytes, str]:
    """Wait for the end of the child, or of the report where a reporter writes it; return the report and the cause."""
    os.set_blocking(reader, False)
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    poll.register(0, 0)  # hang-up only
    pids, child_ended, wanted = [pid, *beside], False, budgets
    data = bytearray()
    cpu_start = looked_cpu = sum(map(_cpu, pids))
    wall_start = looked = time.monotonic()
    slept, before = 0.0, None
    try:
        while True:
            cpu, now = sum(map(_cpu, pids)), time.monotonic()
            if now - looked > _LOOK / 2:
                waits = _waits(pids)
                idle = now - looked - (cpu - looked_cpu)
                if waits is not None and before is not None:
                    asleep = idle - max(0.0, waits[0] - before[0])
                    in_time = now - looked < 3 * _LOOK  # or this process waited, too, and the child perhaps for it
                    if waits[1] and in_time and asleep > (now - looked) / 2:  # less can be the hypervisor's doing
                        slept += asleep
                elif (
                    waits is None and cpu - looked_cpu < _ASLEEP * idle
                ):  # the kernel does not say: only what is certain
                    slept += idle
                looked_cpu, before, looked = cpu, waits, now
            left = cpu_seconds - (cpu - cpu_start) - slept
            if left <= 0:
                return bytes(data), "sleep" if 2 * slept > cpu_seconds else "cpu"
            if now - wall_start > wall_seconds:
                return bytes(data), "wall"
            ready = dict(poll.poll(max(1, int(1000 * min(left, _LOOK)))))
            if 0 in ready:
                raise HangUp
            if pidfd in ready:
                child_ended = True
                poll.unregister(pidfd)
            if reader in ready or child_ended:
                chunk, closed = _drain(reader, max_bytes + 1 - len(data))
                data += chunk
                if len(data) > max_bytes:
                    return bytes(data), "flood"
                if b"\n" in chunk and budgets > 1:
                    budgets -= 1
                    cpu_start, wall_start, slept = sum(map(_cpu, pids)), time.monotonic(), 0.0
                if closed and beside:
                    if data.count(b"\n") < wanted and not child_ended:  # the child's end shows later than its last word
                        poll.unregister(reader)
                        child_ended = any(fd == pidfd for fd, _ in poll.poll(1000))
                    return bytes(data), "end" if child_ended else "exit"
                if closed and reader in ready:
                    poll.unregister(reader)  # closed by the child, which may go on
            if child_ended and not beside:
                return bytes(data), "end"
    finally:
        os.close(pidfd)


def _drain(fd: int, size: int) -> tuple[bytes, bool]:
    """Return the bytes that can be read now, and whether the other end is closed."""
    chunks = []
    while size > 0:
        try:
            chunk = os.read(fd, min(size, _CHUNK))
        except BlockingIOError:
            break
        if not chunk:
            return b"".join(chunks), True
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks), False


def _kill_all(pid: int, spared: Collection[int]) -> int:
    """Kill the child's session and whatever it left to this process (a subreaper); return the child's exit code."""
    for kill in (os.killpg, os.kill):  # neither touches a process that has ended and was not waited for
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    _, status = os.waitpid(pid, 0)
    while os.getpid() != 1:  # in namespaces the filter lets no child have children
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                orphans = [int(word) for word in file.read().split()]
        except OSError:  # a kernel without that file: the session is all that can be reached
            break
        orphans = [orphan for orphan in orphans if orphan not in spared]
        if not orphans:
            break
        for orphan in orphans:
            try:
                os.kill(orphan, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(orphan, 0)
    return os.waitstatus_to_exitcode(status)
