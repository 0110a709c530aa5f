"""Tasks in chunks: how the work on a system's programs is cut, so that a kill costs at most the chunk in hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def compute(self, store: ChunkStore, title: str, make: Callable[[str, Callable[[int], None]], list[Any]]) -> None:
        """Make the chunks that `store` lacks with `make(key, advance)`, under a progress bar over programs."""
        total = self.programs * len(self.tasks)
        missing = self.programs * sum(len(self.tasks_of(key)) for key in store.missing())
        with progress_bar(title, total, "programs", done=total - missing) as advance:
            store.compute(lambda key: make(key, advance))
