"""Tasks in chunks: how the work on a system's programs is cut, so that a kill costs at most the chunk in hand.

Chunks are also what machines share out among themselves: a chunk is the same whoever makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from cptlab.progress import progress_bar
from cptlab.records import Task
from cptlab.storage.chunk_store import ChunkStore


@dataclass(frozen=True)
class TaskChunks:
    """`tasks` in chunks of `size`, each task with `programs` programs."""

    tasks: Sequence[Task]
    size: int
    programs: int

    @property
    def keys(self) -> list[str]:
        return [str(i) for i in range(-(-len(self.tasks) // self.size))]

    def tasks_of(self, key: str) -> Sequence[Task]:
        start = int(key) * self.size
        return self.tasks[start : start + self.size]

    def programs_of(self, keys: Collection[str]) -> int:
        """Count the programs of these chunks."""
        return self.programs * sum(len(self.tasks_of(key)) for key in keys)


@dataclass(frozen=True)
class Stage:
    """One step of the work on programs: `make(key, advance)` gives the records of a chunk, which `store` keeps."""

    title: str
    chunks: TaskChunks
    store: ChunkStore
    make: Callable[[str, Callable[[int], None]], list[Any]]

    def fill(self, keys: Collection[str] | None = None) -> None:
        """Make those of the chunks `keys` (None: all) that are missing, under a progress bar over programs."""
        wanted = self.store.keys if keys is None else keys
        total = self.chunks.programs_of(wanted)
        missing = self.chunks.programs_of([key for key in self.store.missing() if key in wanted])
        with progress_bar(self.title, total, "programs", done=total - missing) as advance:
            self.store.compute(lambda key: self.make(key, advance), keys=wanted)
