"""A stored evaluation, read back from its run directory. Needs no model.

RUN_DIR/config.yaml  tasks.jsonl  metrics.json
RUN_DIR/<system>/completions.jsonl  quality.jsonl  verdicts.jsonl      line i of each is about the same program
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.programs import JudgedProgram, hash_of_text, lines_of_code, scorer_of
from cptlab.metrics.summary import Summary, compare, summarise
from cptlab.records import DIFFICULTIES, Completion, Message, Quality, Task, Verdict
from cptlab.storage.jsonl import from_json, is_stored, open_lines, read_jsonl, read_placed

REMAKE = "Give the directory of an evaluation run, or remake it with `cptlab evaluate run=<train run directory>`."
RECORDS = {"completions": Completion, "quality": Quality, "verdicts": Verdict}  # the files of a system
COMPUTED = ("systems", "results", "differences", "answers", "cost")  # the keys of metrics.json that are no provenance


@dataclass(frozen=True, slots=True)
class StoredProgram(JudgedProgram):
    """A program whose text stays in the file, at byte `place`, so that an evaluation of any size can be read."""

    file: Path = Path()
    place: int = 0

    @property
    def completion(self) -> Completion:
        """The stored completion, read from its file."""
        with open_lines(self.file) as file:
            file.seek(self.place)
            return from_json(Completion, file.readline().decode("utf-8"))


@dataclass(frozen=True)
class Evaluation:
    """A stored evaluation. `systems[name][task_id]` holds the programs of one task in stored order.

    `tasks` are those of which every system has programs, in numbers that may differ. Systems are in the order of the
    evaluation; changes are counted against `baseline`. `provenance` is metrics.json without its figures, `ks` the k of
    the pass@k named there (None where there are none), `cost[system]` the programs and tokens drawn per kept program
    (empty where they were not counted), `config` the text of config.yaml.
    """

    directory: Path
    tasks: tuple[Task, ...]
    systems: Mapping[str, Mapping[str, tuple[StoredProgram, ...]]]
    baseline: str
    provenance: Mapping[str, Any]
    ks: tuple[int, ...] | None
    cost: Mapping[str, Mapping[str, float]]
    config: str

    @property
    def others(self) -> tuple[str, ...]:
        """The systems that are compared with the baseline."""
        return tuple(name for name in self.systems if name != self.baseline)

    @property
    def scorer(self) -> str:
        """The name of the scorer of its programs."""
        return scorer_of(next(iter(self.systems.values())).values())  # all have the same; a table may have no baseline

    @property
    def levels(self) -> dict[str, tuple[Task, ...]]:
        """The tasks of each difficulty that occurs, in the papers' order, and 'all' unless one has them all."""
        groups = {level: tuple(task for task in self.tasks if task.difficulty == level) for level in DIFFICULTIES}
        groups = {level: tasks for level, tasks in groups.items() if tasks}
        return groups if self.tasks in groups.values() else groups | {"all": self.tasks}

    @property
    def samples_per_task(self) -> str:
        """'20 samples', or '1 to 12 samples' where tasks differ."""
        counts = {len(answers[task.id]) for answers in self.systems.values() for task in self.tasks}
        low, high = min(counts), max(counts)
        number = str(low) if low == high else f"{low} to {high}"
        return f"{number} {'sample' if number == '1' else 'samples'}"


@dataclass(frozen=True)
class Metrics:
    """`results[system][level][metric]` and, for each system but the baseline, `differences[system][level][metric]`."""

    results: Mapping[str, Summary]
    differences: Mapping[str, Summary]


def compute_metrics(evaluation: Evaluation) -> Metrics:
    """Compute every metric and its paired difference to the baseline, with intervals, from the stored records."""
    tasks, systems, ks = evaluation.tasks, evaluation.systems, evaluation.ks
    before = systems[evaluation.baseline]
    return Metrics(
        {system: summarise(tasks, programs, ks=ks) for system, programs in systems.items()},
        {system: compare(tasks, before, systems[system], ks=ks) for system in evaluation.others},
    )


def read_evaluation(directory: str | os.PathLike, baseline: str | None = None) -> Evaluation:
    """Read the evaluation stored in `directory`. `baseline` None: its first system.

    Raises UserError for a missing or malformed file, for files of different length, for a baseline that is none of the
    systems, and where no task has programs of every system.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"There is no directory {directory}. {REMAKE}")
    tasks = tuple(_read(directory / "tasks.jsonl", Task))
    if not tasks:
        raise UserError(f"{directory / 'tasks.jsonl'} holds no task. {REMAKE}")
    metrics = _read_metrics(directory / "metrics.json")
    names = system_names(directory, metrics)
    baseline = baseline or names[0]
    if baseline not in names:
        raise UserError(f"{directory} has no system {baseline!r}. Choose one of {', '.join(names)}.")
    systems = {name: read_system(directory / name, tasks) for name in names}
    shared = tuple(task for task in tasks if all(answers[task.id] for answers in systems.values()))
    if not shared:
        raise UserError(f"{directory} holds no task of which every system has samples. {REMAKE}")
    systems = {name: {task.id: answers[task.id] for task in shared} for name, answers in systems.items()}
    provenance = {key: value for key, value in metrics.items() if key not in COMPUTED}
    if "training" in provenance:  # as its config.yaml says the same
        provenance["training"] = {
            system: {name: value for name, value in record.items() if name != "config"}
            for system, record in provenance["training"].items()
        }
    ks, cost = _ks(metrics.get("results")), metrics.get("cost") or {}
    return Evaluation(directory, shared, systems, baseline, provenance, ks, cost, _text(directory / "config.yaml"))


def system_names(directory: Path, metrics: Mapping[str, Any]) -> list[str]:
    """Return the systems of an evaluation in their order: as metrics.json lists them.

    Where it has no list, as in evaluations of earlier versions, the folders with completions.jsonl are the systems, in
    the order of `results`, then of the alphabet.
    """
    if metrics.get("systems"):
        return list(metrics["systems"])
    folders = sorted({path.parent.name for path in directory.glob("*/completions.jsonl*")})
    if not folders:
        raise UserError(f"{directory} holds no system (no <system>/completions.jsonl). {REMAKE}")
    in_order = [name for name in metrics.get("results") or {} if name in folders]
    return in_order + [name for name in folders if name not in in_order]


def read_system(directory: Path, tasks: Sequence[Task]) -> dict[str, tuple[StoredProgram, ...]]:
    """Read the programs of one system by task: those of `tasks`, which has every task that its files name."""
    files = {directory / f"{name}.jsonl": kind for name, kind in RECORDS.items()}
    for path in files:
        _require(path)
    completions, *_ = files
    samples: dict[str, list[StoredProgram]] = {task.id: [] for task in tasks}
    rows = itertools.zip_longest(*(read_placed(*file) for file in files.items()), fillvalue=(None, 0))
    for number, ((one, place), (quality, _), (verdict, _)) in enumerate(rows, 1):
        if one is None or quality is None or verdict is None:
            lengths = [sum(1 for _ in read_jsonl(*file)) for file in files.items()]
            raise UserError(
                f"The files in {directory} are of different length: {lengths[0]} completions, {lengths[1]} "
                f"quality scores, {lengths[2]} verdicts. {REMAKE}"
            )
        if one.task_id not in samples:
            raise UserError(f"{completions}, record {number}: task {one.task_id!r} is not in tasks.jsonl. {REMAKE}")
        counts = lines_of_code(one.program), one.tokens, one.finished, one.cleaned, hash_of_text(one.program)
        samples[one.task_id].append(StoredProgram(_shared(quality), verdict, *counts, completions, place))
    return {task_id: tuple(found) for task_id, found in samples.items()}


@functools.cache
def _one(message: Message) -> Message:
    return message


def _shared(quality: Quality) -> Quality:
    """Return the same score with one object for equal messages, since they repeat by the thousand."""
    return replace(quality, messages=tuple(map(_one, quality.messages)))


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}). {REMAKE}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a JSON object. {REMAKE}")
    return data


def _ks(results: Any) -> tuple[int, ...] | None:
    """Return the k of every 'pass@k' key, at any depth."""
    if not isinstance(results, dict):
        return None
    found = {int(key[5:]) for key in results if key.startswith("pass@") and key[5:].isdigit()}
    found |= {k for value in results.values() for k in _ks(value) or ()}
    return tuple(sorted(found)) or None


def _read(path: Path, kind: type) -> Iterator[Any]:
    _require(path)
    return read_jsonl(path, kind)


def _text(path: Path) -> str:
    _require(path)
    return path.read_text(encoding="utf-8")


def _require(path: Path) -> None:
    if not is_stored(path):
        raise UserError(f"{path} is missing. {REMAKE}")
