"""Levels of the sandbox: what each covers, and what none covers. Each server probes what it got (probe.py).

Levels, the strongest first:

namespaces  A program runs in user, mount, pid, network and IPC namespaces, under a root of its own in which only the
            interpreter's files exist, read-only, and an empty /tmp of bounded size and number of files (namespaces.py).
landlock    The program may read the same files and write one folder, nothing else (landlock.py). Still open: metadata of
            the user's own files and of devices (chmod, utime), and the disk, except for the size of each file.
seccomp     The file system is open: a program can read, overwrite and delete what this user can.
limits      As seccomp, with RLIMIT_NPROC instead of the system-call filter: new processes, sockets and signals are open too.

At every level a program runs in a forked child of a small server that was started as a fresh interpreter. The child has
its own session, a scratch directory that is emptied after it, a bare environment (no tokens), and only the descriptors 0
to 3. Its limits (limits.py) are
- time, per test: CPU time plus the time in which it slept. The server reads the CPU clocks from outside, and RLIMIT_CPU
  is the backstop. So the machine's load does not decide; wall time is a generous backstop;
- address space (RLIMIT_AS), size of each file and of stdout (RLIMIT_FSIZE), open files, size of its answers;
- processes: a seccomp filter refuses new processes and programs, sockets, signals to others, tracing, System V and POSIX
  message queues and keys, descriptors sent to sockets, extended attributes and nearly all of ioctl, to root too. The
  address space bounds threads. Root's capabilities are dropped.
The child returns JSON data only. Expected values and comparison are outside: in the main process, or for tests that are the
benchmark's own Python in an examiner's process beside it, which shares nothing with it but a socket and the scratch
directory. When a run ends, the server kills whatever is left of it. Strings hash alike and `random` is seeded alike in
every run, so a verdict can be repeated.

Not covered. What a program does to its own answers: it can only spoil its own verdict. Reading the interpreter's own
files, installed packages included (only namespaces hide cptlab's own). Memory of the user's other processes, at the
levels below namespaces, for an ordinary user on a kernel without Yama. Faults of the kernel. The filter knows x86-64
and arm64 (arm64 was not tried), and all of this is for Linux. Programs that honestly need subprocesses or sockets fail.
"""

from __future__ import annotations

from cptlab.errors import UserError
from cptlab.settings.shared_settings import SANDBOX_LEVELS

LEVELS = SANDBOX_LEVELS[::-1]  # the weakest first


# Honest programs that fail at a level, though not at all others (docs/judging.md).
FAILS_AT = {
    "namespaces": "a program that opens a file of /proc, /dev/stdin or /dev/stdout",
    "landlock": "a program that writes to /tmp by its name, or shares memory by multiprocessing",
    "seccomp": "none",
    "limits": "none",
}


def check_level(level: str, at_least: str, reasons: dict[str, str]) -> None:
    """Raise UserError where `level` is weaker than `at_least`. `reasons` says why each stronger level is not to be had."""
    if LEVELS.index(level) < LEVELS.index(at_least):
        raise UserError(
            f"The strongest sandbox of this system is {level!r}, but {at_least!r} is asked for ({_listed(reasons)}). Allow "
            f"user namespaces or Landlock on it, or accept the weaker protection: sandbox={level}."
        )


def explanation(level: str, reasons: dict[str, str]) -> str:
    """Return why it is this level, and which honest programs fail at it; '' for the strongest."""
    if level == LEVELS[-1]:
        return ""
    return (
        f"This system has no stronger level ({_listed(reasons)}). Honest programs that fail at it: {FAILS_AT[level]}."
    )


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"no {level}: {reason}" for level, reason in reasons.items())
