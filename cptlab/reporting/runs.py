"""A stored evaluation run, as read back from its directory. Nothing here needs a model.

RUN_DIR/config.yaml  tasks.jsonl  metrics.json
RUN_DIR/<system>/completions.jsonl  quality.jsonl  verdicts.jsonl      line i of each speaks of the same program
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.records import DIFFICULTIES, Completion, Quality, Task, Verdict, read_jsonl

BASELINE, TUNED = "base", "tuned"
REMAKE = "Give the directory of an evaluation run, or remake it with `python evaluate.py run=<train run directory>`."


@dataclass(frozen=True)
class Sample:
    """One judged program."""

    completion: Completion
    quality: Quality
    verdict: Verdict

    @property
    def parses(self) -> bool:
        """Whether both judges could read the program ("valid" in CPT VII-A)."""
        unread = self.quality.fatal or any(message.id == "E0001" for message in self.quality.messages)
        return self.verdict.status != "not_parsed" and not unread


@dataclass(frozen=True)
class Run:
    """An evaluation run. `systems[name][task_id]` holds the samples of one task in stored order.

    The first system is the one that the others are compared with. `provenance` is metrics.json without its figures,
    `ks` the k of the pass@k named there (None where there are none), `config` the text of config.yaml.
    """

    directory: Path
    tasks: tuple[Task, ...]
    systems: Mapping[str, Mapping[str, tuple[Sample, ...]]]
    provenance: Mapping[str, Any]
    ks: tuple[int, ...] | None
    config: str

    @property
    def baseline(self) -> str:
        return next(iter(self.systems))

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(self.systems)[1:]

    @property
    def levels(self) -> dict[str, tuple[Task, ...]]:
        """The tasks of each difficulty that occurs, in the papers' order, and 'all' unless one has them all."""
        groups = {level: tuple(task for task in self.tasks if task.difficulty == level) for level in DIFFICULTIES}
        groups = {level: tasks for level, tasks in groups.items() if tasks}
        return groups if self.tasks in groups.values() else groups | {"all": self.tasks}

    def samples(self, system: str) -> list[Sample]:
        """Every sample of a system, task after task."""
        return [sample for task in self.tasks for sample in self.systems[system][task.id]]

    @property
    def samples_per_task(self) -> int:
        return len(self.systems[self.baseline][self.tasks[0].id])


def read_run(directory: str | os.PathLike) -> Run:
    """The evaluation run stored in `directory`.

    Raises UserError for a missing or malformed file, for files of different length, and where the number of samples
    is not the same for every task and system.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"There is no directory {directory}. {REMAKE}")
    tasks = tuple(_read(directory / "tasks.jsonl", Task))
    if not tasks:
        raise UserError(f"{directory / 'tasks.jsonl'} holds no task. {REMAKE}")
    names = {path.parent.name for path in directory.glob("*/completions.jsonl")}
    if not names:
        raise UserError(f"{directory} holds no system (no <system>/completions.jsonl). {REMAKE}")
    first = [name for name in (BASELINE, TUNED) if name in names]
    systems = {name: _read_system(directory / name, tasks) for name in first + sorted(names - set(first))}
    counts = {len(samples) for answers in systems.values() for samples in answers.values()}
    if len(counts) > 1:
        raise UserError(
            f"{directory} holds between {min(counts)} and {max(counts)} samples per task and system; they can only be "
            f"compared where the number is the same. {REMAKE}"
        )
    metrics = _read_metrics(directory / "metrics.json")
    provenance = {key: value for key, value in metrics.items() if key not in ("results", "differences")}
    ks = _ks(metrics.get("results"))
    return Run(directory, tasks, systems, provenance, ks, _text(directory / "config.yaml"))


def _read_system(directory: Path, tasks: tuple[Task, ...]) -> dict[str, tuple[Sample, ...]]:
    completions = _read(directory / "completions.jsonl", Completion)
    qualities = _read(directory / "quality.jsonl", Quality)
    verdicts = _read(directory / "verdicts.jsonl", Verdict)
    if not len(completions) == len(qualities) == len(verdicts):
        raise UserError(
            f"The files in {directory} are of different length: {len(completions)} completions, {len(qualities)} "
            f"quality scores, {len(verdicts)} verdicts. {REMAKE}"
        )
    samples: dict[str, list[Sample]] = {task.id: [] for task in tasks}
    for number, row in enumerate(zip(completions, qualities, verdicts, strict=True), 1):
        if row[0].task_id not in samples:
            raise UserError(
                f"{directory / 'completions.jsonl'}, record {number}: task {row[0].task_id!r} is not in tasks.jsonl. "
                + REMAKE
            )
        samples[row[0].task_id].append(Sample(*row))
    return {task_id: tuple(found) for task_id, found in samples.items()}


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}). {REMAKE}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a JSON object. {REMAKE}")
    return data


def _ks(results: Any) -> tuple[int, ...] | None:
    """The k of every 'pass@k' key, at any depth."""
    if not isinstance(results, dict):
        return None
    found = {int(key[5:]) for key in results if key.startswith("pass@") and key[5:].isdigit()}
    found |= {k for value in results.values() for k in _ks(value) or ()}
    return tuple(sorted(found)) or None


def _read(path: Path, kind: type) -> list[Any]:
    _require(path)
    return list(read_jsonl(path, kind))


def _text(path: Path) -> str:
    _require(path)
    return path.read_text(encoding="utf-8")


def _require(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing. {REMAKE}")
