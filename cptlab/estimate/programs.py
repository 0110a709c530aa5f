"""What making a system's programs takes of time and disk, measured on one chunk of them, which is kept.

A chunk is some hundred programs, made here as the command itself would make them, stage by stage.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from cptlab.estimate.estimate import duration
from cptlab.systems.samples import SystemPrograms
from cptlab.training.reference import readable

DAY = 24 * 3600.0


@dataclass(frozen=True)
class ProgramsEstimate:
    """Programs, seconds and bytes. `seconds` and `stored`: those of each stage, of the `measured` programs of one chunk.

    `tokens` are those of the chunk's answers. `seconds` is empty where every chunk was there already.
    """

    name: str
    tasks: int
    each: int
    chunks: int
    measured: int
    tokens: int
    seconds: dict[str, float]
    stored: dict[str, int]

    def lines(self) -> list[str]:
        """Return the table, in words and units."""
        total = self.tasks * self.each
        times = total / self.measured
        rows = [
            (
                f"Programs of {self.name}",
                f"{total:,}",
                f"{self.tasks:,} tasks × {self.each}, in {self.chunks:,} chunks",
            ),
            (
                "  tokens",
                f"{self.tokens / self.measured:.0f} each",
                f"measured on {self.measured} programs, prompts left out",
            ),
        ]
        for title, seconds in self.seconds.items():
            rate = f"{self.measured / seconds:,.1f} programs/s" if seconds else ""
            rows.append((f"  {title}", duration(seconds * times), f"on this machine; {rate}"))
        if self.seconds:
            seconds = sum(self.seconds.values()) * times
            rows.append(("Time of all", duration(seconds), "of one such machine, one stage after the other"))
            rows.append(
                ("Machines for a day", f"{seconds / DAY:,.2f}", "such as this one, each with shards of its own")
            )
        else:
            rows.append(("Time", "unknown", "every chunk was there already"))
        size = sum(self.stored.values())
        parts = ", ".join(f"{name} {size / self.measured:,.0f}" for name, size in self.stored.items())
        rows.append(("Disk", readable(round(size * times)), f"bytes a program: {parts}"))
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        return [f"{name:<{first}}  {value:<{second}}  {how}".rstrip() for name, value, how in rows]


def measure(programs: SystemPrograms) -> ProgramsEstimate:
    """Make the first chunk that is missing, and time its stages; or only measure the first one's files."""
    chunks, missing = programs.chunks, programs.missing()
    key = (missing or chunks.keys)[0]
    seconds, stored = {}, {}
    stages = ([] if programs.first is None else programs.first.stages) + programs.stages
    for stage in stages:
        name, started = stage.title.removeprefix(f"{programs.system.name}: "), time.monotonic()
        is_there = key not in stage.store.missing()
        stage.fill([key])
        if not is_there:
            seconds[name] = time.monotonic() - started
        stored[name] = stage.store.path(key).stat().st_size
    answers = programs.sampling.store.read(key)
    return ProgramsEstimate(
        programs.system.name,
        len(chunks.tasks),
        chunks.programs,
        len(chunks.keys),
        len(answers),
        sum(answer.tokens for answer in answers),
        seconds,
        stored,
    )
