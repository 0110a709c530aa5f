"""A benchmark: named tasks, each in one split, and a digest of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.settings.setting import Setting
from cptlab.storage.jsonl import integers_of_any_length
from cptlab.tasks.splits import split_tasks
from cptlab.tasks.task_ids import TaskIds

# what every benchmark but kata takes
Fractions = Annotated[
    Sequence[float] | None,
    Setting(
        "Divide the tasks anew into train, validation and test, such as [8,1,1]; null: the data set's own splits, or all "
        "in test where it has none.",
        at_least=0,
    ),
]

Exclude = Annotated[Sequence[str], Setting("Ids of tasks to leave out, such as [HumanEval/3,HumanEval/7].")]


@dataclass(frozen=True)
class Benchmark:
    """A named set of tasks. `excluded`: ids of those among `every` that are left out of `tasks`.

    `all_solutions` yields (task id, program) where the benchmark has several solutions of a task; None: the canonical ones.
    """

    name: str
    tasks: tuple[Task, ...]
    excluded: tuple[str, ...] = ()
    every: tuple[Task, ...] = ()
    all_solutions: Callable[[], Iterable[tuple[str, str]]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", self.every or self.tasks)

    def without(self, exclude: Sequence[str]) -> Benchmark:
        """Return it without the tasks of these ids or numbers. UserError for one that is not there, or if none is left."""
        ids = TaskIds(self.every)
        found = [ids.find(given) for given in exclude]
        if None in found:
            raise UserError(
                f"benchmark.exclude has {exclude[found.index(None)]}, and {self.name} has no such task. Give ids such as "
                f"{self.every[0].id}."
            )
        tasks = tuple(task for task in self.every if task.id not in found)
        if not tasks:
            raise UserError(f"benchmark.exclude leaves no task of {self.name}. Exclude fewer.")
        excluded = tuple(task.id for task in self.every if task.id in found)
        return Benchmark(self.name, tasks, excluded, self.every, self.all_solutions)

    def solutions(self, tasks: Sequence[Task]) -> Iterator[tuple[str, str]]:
        """Yield (task id, program) of every solution that comes with these tasks."""
        if self.all_solutions is None:
            yield from ((task.id, task.canonical_solution) for task in tasks if task.canonical_solution is not None)
            return
        wanted = {task.id for task in tasks}
        yield from (one for one in self.all_solutions() if one[0] in wanted)

    def excluded_of(self, split: str) -> list[str]:
        """Return the ids of the tasks of a split that are left out."""
        return [task.id for task in self.every if task.id in self.excluded and task.split == split]

    def split(self, split: str, limit: int | None = None) -> list[Task]:
        """Return the tasks of a split, in order. `limit` keeps the first tasks, as many of each difficulty as possible.

        The perturbations of a task are kept together, even where `limit` is passed thereby. UserError where no task is in
        that split.
        """
        tasks = [task for task in self.tasks if task.split == split]
        if not tasks:
            there = ", ".join(sorted({task.split for task in self.tasks}))
            raise UserError(
                f"Benchmark {self.name} has no split {split!r}. Choose one of: {there}. Or divide its tasks anew with "
                "benchmark.fractions=[8,1,1] (train, validation, test), where it has that setting."
            )
        if limit is None or limit >= len(tasks):
            return tasks
        queues: dict[str, dict[str, list[str]]] = {}  # of each difficulty, the perturbations of a task being one
        for task in tasks:
            queues.setdefault(task.difficulty, {}).setdefault(task.variant_of or task.id, []).append(task.id)
        kept: set[str] = set()
        while len(kept) < limit:
            for queue in queues.values():
                if queue and len(kept) < limit:
                    kept.update(queue.pop(next(iter(queue))))
        return [task for task in tasks if task.id in kept]

    def fingerprint(self) -> str:
        """Return a digest of all tasks: results are stored under it."""
        return digest_of(self.tasks)[:16]


def digest_of(tasks: Iterable[Task]) -> str:
    """Return a digest of the content of tasks, in their order."""
    digest = hashlib.sha256()
    with integers_of_any_length():
        for task in tasks:
            digest.update(repr(task).encode())
    return digest.hexdigest()


def divided(tasks: Sequence[Task], fractions: Sequence[float] | None) -> tuple[Task, ...]:
    """Divide the tasks into splits train, validation and test in proportion to `fractions`; None leaves their splits."""
    if fractions is None:
        return tuple(tasks)
    splits = split_tasks([task.id for task in tasks], [task.difficulty for task in tasks], list(fractions))
    return tuple(replace(task, split=splits[task.id]) for task in tasks)
