"""Running generated programs: what is covered here, and what is not.

Covered. A program runs in a forked child of a small server that was started as a fresh interpreter. The child has its
own session, a scratch working directory that is removed after it, a bare environment (no tokens), and the descriptors
0 to 3 alone (stdin, stdout, stderr and the pipe for its report). It is limited in
- CPU time, per test. The server reads the child's CPU clock from outside; RLIMIT_CPU is the backstop. This, and not the
  machine's load, decides about timeouts;
- wall time, per test, a generous backstop for programs that sleep;
- address space (RLIMIT_AS), size of each file and of stdout (RLIMIT_FSIZE), open files, size of its report;
- processes: a seccomp filter refuses new processes and programs, to root too; threads are bounded by the address space.
  The same filter refuses sockets and signals to other processes, and root's capabilities are dropped. Where the kernel
  has no such filter (`Sandbox.confined` is False), RLIMIT_NPROC stands in, which does not bind root.
It returns plain data only. Expected values never enter the server or the child; correctness.py compares outside both.
When a run ends, whatever is left of its session or has become an orphan of the server is killed. Strings hash and
`random` is seeded alike in every run, so a verdict can be repeated.

Not covered. The file system: a program can read what this user can read (so tasks on disk), and overwrite or delete
files of this user outside its scratch directory, if it knows where. The number of files, and so the disk. The memory of
the user's other processes, for an ordinary user on a kernel without Yama. What a program does to its own report: it can
only spoil its own verdict. Faults of the kernel. The filter knows x86-64 and arm64 (arm64 was not tried); all of this is
for Linux. Programs that honestly need subprocesses or sockets fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cptlab.judging.pool import ServerPool, available_cpus


@dataclass(frozen=True)
class Limits:
    """What one program may use. CPU and wall seconds are per test, loading counts as one."""

    cpu_seconds: float = 2.0
    wall_seconds: float = 30.0
    memory_mb: int = 1024  # address space, the interpreter's own (about 50) included
    output_mb: int = 8  # of stdout, of each file and of the returned values together
    processes: int = 32  # used only where there is no seccomp filter


@dataclass(frozen=True)
class Program:
    """A program and its inputs: JSON texts of argument lists for a function, stdin texts for a script (None)."""

    source: str
    entry_point: str | None
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What one process said and how it ended. `cause`: exit, signal, cpu, wall or flood. Nothing here is trusted."""

    lines: tuple[str, ...]
    cause: str
    code: int
    stdout: str


class Sandbox:
    """Servers that run programs; a context manager."""

    def __init__(self, workers: int | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        if "LD_LIBRARY_PATH" in os.environ:  # some interpreters do not start without
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self._pool = ServerPool("cptlab.judging.candidate_server", {}, workers or available_cpus(), environment)

    def __enter__(self) -> Sandbox:
        self._pool.__enter__()
        self.confined: bool = self._pool.hello["confined"]
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def run(self, programs: Iterable[tuple[Any, Program]]) -> Iterator[tuple[Any, list[Run]]]:
        """For each (key, program), in the order in which they end, (key, runs): one run for a function, one per input
        for a script, up to the first that had to be ended. No runs if the program took its server down twice.
        """
        limits = asdict(self.limits)
        requests = (
            (key, {"source": p.source, "entry_point": p.entry_point, "inputs": p.inputs, "limits": limits})
            for key, p in programs
        )
        for key, answer in self._pool.answers(requests):
            runs = [] if answer is None else answer["runs"]
            yield key, [Run(tuple(r["lines"]), r["cause"], r["code"], r["stdout"]) for r in runs]
