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
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_CHUNK = 1 << 16
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + 4 * [ctypes.c_ulong]


class HangUp(Exception):
    """The main process has gone."""


@dataclass(frozen=True)
class Ending:
    """How a child ended. `cause`: exit, signal, cpu, wall or flood; `code`: exit status or signal number."""

    data: bytes
    cause: str
    code: int


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


def run_forked(
    child: Callable[[int], None], *, cpu_seconds: float, wall_seconds: float, max_bytes: int, steps: int = 1
) -> Ending:
    """Fork, run `child(fd)` there, and return what it wrote to `fd` before it ended or was ended.

    The child leads a session of its own. Its CPU time is read from outside, where it cannot be reset; both budgets
    start anew when the child completes a line, `steps - 1` times at most, so a child that runs tests has them per test.
    Nothing that descends from the child is alive when this returns.
    """
    reader, writer = os.pipe()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == server:
                os.close(reader)
                child(writer)
            os._exit(0)
        finally:
            os._exit(70)
    os.close(writer)
    pidfd = os.pidfd_open(pid)
    try:
        data, cause = _watch(pid, pidfd, reader, cpu_seconds, wall_seconds, max_bytes, steps)
    finally:
        code = _kill_all(pid)
        os.close(pidfd)
        os.close(reader)
    if cause == "end":
        cause = "exit" if code >= 0 else "signal"
    return Ending(data, cause, abs(code))


def _watch(
    pid: int, pidfd: int, reader: int, cpu_seconds: float, wall_seconds: float, max_bytes: int, steps: int
) -> tuple[bytes, str]:
    os.set_blocking(reader, False)
    clock = (~pid << 3) | 2  # the CPU clock of another process, as clock_getcpuclockid(3) makes it
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reader, select.POLLIN)
    poll.register(0, 0)  # hang-up only
    data = bytearray()
    cpu_start, wall_start = 0.0, time.monotonic()
    while True:
        cpu_left = cpu_seconds - (time.clock_gettime(clock) - cpu_start)
        wall_left = wall_seconds - (time.monotonic() - wall_start)
        if cpu_left <= 0 or wall_left <= 0:
            return bytes(data), "cpu" if cpu_left <= 0 else "wall"
        ready = dict(poll.poll(max(1, int(1000 * min(cpu_left, wall_left)))))
        if 0 in ready:
            raise HangUp
        if reader in ready:
            chunk = _drain(reader, max_bytes + 1 - len(data))
            data += chunk
            if len(data) > max_bytes:
                return bytes(data), "flood"
            if b"\n" in chunk and steps > 1:
                steps -= 1
                cpu_start, wall_start = time.clock_gettime(clock), time.monotonic()
            if not chunk:
                poll.unregister(reader)  # closed by the child, which may go on
        if pidfd in ready:
            data += _drain(reader, max_bytes + 1 - len(data))
            return bytes(data), "flood" if len(data) > max_bytes else "end"


def _drain(fd: int, size: int) -> bytes:
    chunks = []
    while size > 0:
        try:
            chunk = os.read(fd, min(size, _CHUNK))
        except BlockingIOError:
            break
        if not chunk:
            break
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _kill_all(pid: int) -> int:
    """Kill the child's session and whatever it left to this process (a subreaper); the child's exit code."""
    code, waited = 0, False
    for kill in (os.killpg, os.kill):  # neither touches a process that has ended and was not waited for
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    while True:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:  # a kernel without that file: the session is all that can be reached
            children = [] if waited else [pid]
        for one in children:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                pass
            _, status = os.waitpid(one, 0)
            if one == pid:
                code, waited = os.waitstatus_to_exitcode(status), True
        if not children:
            return code
