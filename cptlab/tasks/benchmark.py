"""What every benchmark is to the rest of cptlab: tasks, each in one split, and a fingerprint of their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cptlab.errors import UserError
from cptlab.records import DIFFICULTIES, Task


@dataclass(frozen=True)
class Benchmark:
    """A named set of tasks."""

    name: str
    tasks: tuple[Task, ...]

    def split(self, split: str, limit: int | None = None) -> list[Task]:
        """The tasks of a split, in order. `limit` keeps the first tasks, as many of each difficulty as possible."""
        tasks = [task for task in self.tasks if task.split == split]
        if not tasks:
            there = ", ".join(sorted({task.split for task in self.tasks}))
            raise UserError(f"Benchmark {self.name} has no split {split!r}. Choose one of: {there}.")
        if limit is None or limit >= len(tasks):
            return tasks
        queues = [[task for task in tasks if task.difficulty == difficulty] for difficulty in DIFFICULTIES]
        kept: set[str] = set()
        while len(kept) < limit:
            for queue in queues:
                if queue and len(kept) < limit:
                    kept.add(queue.pop(0).id)
        return [task for task in tasks if task.id in kept]

    def fingerprint(self) -> str:
        """A digest of all tasks: results are stored under it."""
        digest = hashlib.sha256()
        for task in self.tasks:
            digest.update(repr(task).encode())
        return digest.hexdigest()[:16]
