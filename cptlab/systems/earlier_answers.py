"""Answers that other runs keep: drawn in the same way, but another number of them, or for another choice of tasks.

An answer is the same function of seed, task and sample whatever is drawn beside it (decoding/sampling.py), up to rounding. So
`n=20` after `n=5`, or all tasks after `limit=40`, draws what is new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cptlab.records import Completion, Prompt
from cptlab.storage.chunk_store import FORMAT, MANIFEST, ChunkStore, kept_records
from cptlab.systems.chunks import TaskChunks

CHOICE = ("n", "chunk", "tasks", "prompts")  # of the work: which answers, not what they are


def choice(chunks: TaskChunks, prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """Return the part of a sampling's work that says which answers are drawn."""
    ids = [task.id for task in chunks.tasks]
    digests = [hashlib.sha256(repr(prompts[task]).encode()).hexdigest()[:16] for task in ids]
    return {"n": chunks.programs, "chunk": chunks.size, "tasks": ids, "prompts": digests}


@dataclass(frozen=True)
class _Other:
    directory: Path
    work: str
    chunk: int
    places: dict[str, int]  # by task

    def answers(self, tasks: Sequence[str]) -> list[Completion]:
        numbers = sorted({self.places[task] // self.chunk for task in tasks if task in self.places})
        return [one for number in numbers for one in kept_records(self.directory, self.work, number, Completion)]


class EarlierAnswers:
    """What is kept beside `store`, in stores of the same work but for its `choice`. Nothing is changed there."""

    def __init__(self, store: ChunkStore) -> None:
        self.store = store

    def of(self, tasks: Sequence[str], n: int) -> list[Completion]:
        """Return the answers to these tasks, those of the samples below `n`, each once."""
        wanted, found = set(tasks), {}
        for other in self._others:
            for one in other.answers(tasks):
                if one.task_id in wanted and one.task_id in other.places and one.sample < n:
                    found.setdefault((one.task_id, one.sample), one)
        return list(found.values())

    @cached_property
    def _others(self) -> list[_Other]:
        work = self.store.work
        own = json.loads(json.dumps({name: value for name, value in work.items() if name not in CHOICE}))
        prompts = dict(zip(work["tasks"], work["prompts"], strict=True))
        kind = self.store.directory.name.partition("-")[0]
        others = []
        for manifest in sorted(self.store.directory.parent.glob(f"{kind}-*/{MANIFEST}")):
            if manifest.parent == self.store.directory:
                continue
            try:
                text = manifest.read_bytes()
                content = json.loads(text)
                other, chunk = content["work"], content["work"]["chunk"]
                if (content["format"], content["kind"]) != (FORMAT, Completion.__name__):
                    continue
                if own != {name: value for name, value in other.items() if name not in CHOICE}:
                    continue
                asked = enumerate(zip(other["tasks"], other["prompts"], strict=True))
                places = {task: place for place, (task, prompt) in asked if prompts.get(task) == prompt}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # damaged, of another version, or another user's own: what it holds is made again
            if places:
                others.append(_Other(manifest.parent, hashlib.sha256(text).hexdigest(), chunk, places))
        return others
