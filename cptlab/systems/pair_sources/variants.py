"""Variants of programs, scored and run on the tests like any other programs, in stores of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cptlab.records import Completion, Quality, Task, Verdict
from cptlab.storage.chunk_store import ChunkStore
from cptlab.systems.chunks import Stage, TaskChunks
from cptlab.systems.judge import Judge
from cptlab.systems.samples import CHUNK_PROGRAMS, SystemPrograms

Judged = list[tuple[Completion, Quality, Verdict]]


def judge_variants(
    name: str, variants: Mapping[str, Sequence[Completion]], tasks: Sequence[Task], work: dict[str, Any], judge: Judge
) -> dict[str, Judged]:
    """Return the variants of each task with their scores and verdicts, by task id.

    `work` names everything that the variants depend on; `name` is that of their store and of the progress bars.
    """
    having = [task for task in tasks if variants.get(task.id)]
    most = max((len(variants[task.id]) for task in having), default=1)
    chunks = TaskChunks(having, max(1, CHUNK_PROGRAMS // most), most)
    store = ChunkStore(judge.cache / name, Completion, work | {"tasks": [task.id for task in having]}, chunks.keys)

    def write(key: str, advance: Callable[[int], None]) -> list[Completion]:
        found = [one for task in chunks.tasks_of(key) for one in variants[task.id]]
        advance(most * len(chunks.tasks_of(key)))
        return found

    title = f"pairs, {name}"
    stages = [
        Stage(f"{title}: writing programs", chunks, store, write),
        judge.scoring(store, chunks, title),
        judge.testing(store, chunks, title),
    ]
    for stage in stages:
        stage.fill()
    judged: dict[str, Judged] = {task.id: [] for task in tasks}
    for one in zip(*(stage.store.records() for stage in stages), strict=True):
        judged[one[0].task_id].append(one)
    return judged


Fill = Callable[[SystemPrograms], None]  # makes programs, in this process or wherever they are to be made


def same_verdict(one: Verdict, other: Verdict) -> bool:
    """Whether the tests say the same of two programs."""
    return _verdict(one) == _verdict(other)


def _verdict(verdict: Verdict) -> tuple[Any, ...]:
    return verdict.status, verdict.public_passed, verdict.hidden_passed, sorted(verdict.by_rule.items())


def message_counts(quality: Quality) -> Counter[str]:
    """How often each pylint message is reported."""
    return Counter(message.id for message in quality.messages)
