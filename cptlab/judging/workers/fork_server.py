"""What runs inside a judging server: one request at a time, each answered by a forked child under limits.

A server is a fresh, single-threaded interpreter (see pool.py), so forking it is cheap and safe whatever threads the
main process has. Requests arrive on descriptor 0 and answers leave on descriptor 1; when descriptor 0 hangs up, because
the main process closed it or died, the server kills what it was running and ends.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_CHUNK = 1 << 16
_PATIENCE = 20_000  # microseconds after which an examiner that waits for the child reports what it has
_LOOK = 0.1  # seconds between two looks at a child's clock
_ASLEEP = 0.02  # a child that got less of the time than this was asleep
libc = ctypes.CDLL(None, use_errno=True)
# os.fork would call what modules registered for it, which costs a child 100 pages; a server has no threads to look after
_with_interpreter = ctypes.PyDLL(None)
libc.prctl.argtypes = [ctypes.c_int] + 4 * [ctypes.c_ulong]


class HangUp(Exception):
    """The main process has gone."""


class Ending(NamedTuple):
    """How a child ended, and what was reported. `cause`: exit, signal, cpu, sleep, wall, flood, or lost where the examiner
    did not come to its end; `code`: exit status or signal number."""

    data: bytes
    cause: str
    code: int


class Helper(NamedTuple):
    """A process that lives on from run to run, as an examiner. `start(channel, report)` hands it the next run's ends."""

    pid: int
    start: Callable[[int, int], None]


def read_message(fd: int) -> Any | None:
    """The next JSON value from `fd`, or None at its end."""
    header = _read_exactly(fd, 4)
    if header is None:
        return None
    body = _read_exactly(fd, struct.unpack("!I", header)[0])
    return None if body is None else json.loads(body)


def write_message(fd: int, value: Any) -> None:
    """One JSON value, preceded by its length in four bytes."""
    body = json.dumps(value).encode()
    write_all(fd, struct.pack("!I", len(body)) + body)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_exactly(fd: int, size: int) -> bytes | None:
    chunks = []
    while size:
        chunk = os.read(fd, min(size, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def serve(answer: Callable[[Any], Any], hello: Any) -> None:
    """Send `hello`, then answer requests until descriptor 0 closes; then return, for the caller to clean up."""
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    gc.collect()
    gc.freeze()  # or the collector would touch, and so copy, every page in every child
    try:
        write_message(1, hello)
        while (request := read_message(0)) is not None:
            write_message(1, answer(request))
    except (HangUp, BrokenPipeError):
        pass


def tidy(scratch: str) -> None:
    """Remove what is left in the pool's folder, at the end of a server: the main process may have been killed."""
    try:
        for name in os.listdir(scratch):
            if name.startswith("tests-"):
                os.unlink(os.path.join(scratch, name))
        os.rmdir(scratch)
    except OSError:
        pass  # other servers are still at work, or the main process was quicker


def run_forked(
    child: Callable[[int], None],
    *,
    cpu_seconds: float,
    wall_seconds: float,
    max_bytes: int,
    steps: int = 1,
    examiner: Helper | None = None,
) -> Ending:
    """Fork, run `child(fd)` there, and return what it wrote to `fd` before it ended or was ended.

    With an `examiner`, `fd` is the child's end of a socket whose other end the examiner gets; it is then the examiner's
    report that counts and that is returned, and the child is ended when the examiner closes it.

    The child leads a session of its own. CPU time is read from outside, where it cannot be reset. Time in which neither
    child nor examiner ran is sleep; it counts with the CPU time of both, so a program cannot hold its place by doing
    nothing, and a loaded machine does not count against it: `cpu_seconds` bounds their sum, `wall_seconds` is the
    backstop. Both start anew with each complete line of the report, `steps - 1` times at most. `max_bytes` bounds the
    report. The child, and what descends from it, is not alive when this returns.
    """
    reader, writer = os.pipe()
    if examiner is None:
        pid = _fork(lambda: child(writer), reader)
    else:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, _PATIENCE))
        pid = _fork(lambda: child(theirs.fileno()), reader)
        examiner.start(ours.fileno(), writer)
        ours.close()
        theirs.close()
    os.close(writer)
    try:
        helpers = [examiner.pid] if examiner else []
        data, cause = _watch(pid, helpers, reader, cpu_seconds, wall_seconds, max_bytes, steps)
    finally:
        code = _kill_all(pid, helpers)
        os.close(reader)
    if cause == "end":
        cause = "exit" if code >= 0 else "signal"
    return Ending(data, cause, abs(code))


def _fork(action: Callable[[], None], foreign: int) -> int:
    server = os.getpid()
    pid = _with_interpreter.fork()
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
    """CPU seconds of a process that was not waited for (its clock, as clock_getcpuclockid(3) makes it)."""
    return time.clock_gettime((~pid << 3) | 2)


def _delay(pids: list[int]) -> float | None:
    """Seconds that the processes' threads were ready and had to wait for a CPU; None where the kernel does not say."""
    total = 0
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None  # a /proc of other namespaces, in which these numbers are other processes
        for pid in pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                    total += int(file.read().split()[1])
    except (OSError, IndexError):
        return None
    return total / 1e9


def _watch(
    pid: int, helpers: list[int], reader: int, cpu_seconds: float, wall_seconds: float, max_bytes: int, steps: int
) -> tuple[bytes, str]:
    """Wait for the child's end, or with helpers for that of the report; the report and why it ended."""
    os.set_blocking(reader, False)
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    poll.register(0, 0)  # hang-up only
    pids, child_ended, wanted = [pid, *helpers], False, steps
    data = bytearray()
    cpu_start = looked_cpu = sum(map(_cpu, pids))
    wall_start = looked = time.monotonic()
    slept, looked_delay = 0.0, None
    try:
        while True:
            cpu, now = sum(map(_cpu, pids)), time.monotonic()
            if now - looked > _LOOK / 2:
                delay = _delay(pids)
                idle = now - looked - (cpu - looked_cpu)
                if None not in (delay, looked_delay):
                    asleep = idle - max(0.0, delay - looked_delay)
                    if asleep > (now - looked) / 2:  # less can be the hypervisor's doing
                        slept += asleep
                elif cpu - looked_cpu < _ASLEEP * idle:  # without its delays, only what is plain to see
                    slept += idle
                looked_cpu, looked_delay, looked = cpu, delay, now
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
                if b"\n" in chunk and steps > 1:
                    steps -= 1
                    cpu_start, wall_start, slept = sum(map(_cpu, pids)), time.monotonic(), 0.0
                if closed and helpers:
                    if data.count(b"\n") < wanted and not child_ended:  # the child's end shows later than its last word
                        poll.unregister(reader)
                        child_ended = any(fd == pidfd for fd, _ in poll.poll(1000))
                    return bytes(data), "end" if child_ended else "exit"
                if closed and reader in ready:
                    poll.unregister(reader)  # closed by the child, which may go on
            if child_ended and not helpers:
                return bytes(data), "end"
    finally:
        os.close(pidfd)


def _drain(fd: int, size: int) -> tuple[bytes, bool]:
    """What there is to read, and whether the other end is closed."""
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


def _kill_all(pid: int, helpers: list[int]) -> int:
    """Kill the child's session and whatever it left to this process (a subreaper); the child's exit code."""
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
        orphans = [orphan for orphan in orphans if orphan not in helpers]
        if not orphans:
            break
        for orphan in orphans:
            try:
                os.kill(orphan, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(orphan, 0)
    return os.waitstatus_to_exitcode(status)
