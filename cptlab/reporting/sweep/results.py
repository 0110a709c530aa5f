"""The evaluations below some directories, read as configurations with seeds: the metrics of every task, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.definitions import PYLINT, QUALITY, find_metric, label_of
from cptlab.metrics.summary import allowed_ks, per_task
from cptlab.records import DIFFICULTIES
from cptlab.reporting.evaluation import read_evaluation
from cptlab.reporting.sweep.configurations import Facts, facts_of, label_all
from cptlab.storage.run_directory import RUN_FILE, adapter_kind, read_record
from cptlab.storage.sweep_directory import read_failures

Seed = tuple[int | None, int | None]  # of the training run, of the evaluation
Values = Mapping[str, Mapping[str, float | None]]  # metric -> task id -> value


@dataclass(frozen=True)
class Replicate:
    """One system of one evaluation: a configuration under one seed."""

    facts: Facts
    seed: Seed
    values: Values
    directory: Path
    system: str
    training_run: str | None


@dataclass(frozen=True)
class SweepResults:
    """Configurations on the same tasks. `replicates[label][seed]`; `levels[difficulty]` are ids of tasks, as in a table.

    `about` names benchmark and split, `metrics` are those that every replicate has, `samples` is n.
    """

    about: str
    benchmark: str
    replicates: Mapping[str, Mapping[Seed, Replicate]]
    levels: Mapping[str, tuple[str, ...]]
    metrics: tuple[str, ...]
    samples: str
    notes: tuple[str, ...] = ()

    @property
    def scorer(self) -> str:
        """The name of the scorer of all programs."""
        means = [name for name in self.metrics if find_metric(name).family == QUALITY]
        return means[0].removesuffix("_mean") if means else PYLINT

    @property
    def facts(self) -> list[Facts]:
        return [next(iter(found.values())).facts for found in self.replicates.values()]


@dataclass(frozen=True)
class _Read:
    replicates: list[Replicate]
    tasks: Mapping[str, str | None]  # id -> difficulty
    about: str
    benchmark: str
    samples: str
    scorer: str  # its settings, as JSON


def read_sweeps(directories: Sequence[Path]) -> tuple[list[SweepResults], list[str]]:
    """Read all finished evaluations in these directories: one result for each benchmark, and what was left out.

    Raises UserError where there is none.
    """
    left_out, found, seen = [], [], set()
    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"There is no directory {directory}. Give the directory of a sweep of cptlab evaluate.")
        failures = read_failures(directory)
        failed = {directory / str(failure.number) for failure in failures}  # each named once, with its reason
        for run in sorted((file.parent for file in directory.rglob(RUN_FILE)), key=_in_order):
            if run.resolve() in seen:
                continue
            seen.add(run.resolve())
            if not read_record(run / RUN_FILE).get("finished"):
                left_out += [] if run in failed else [f"{run} is not finished."]
            elif (run / "tasks.jsonl").is_file() or (run / "tasks.jsonl.gz").is_file():
                found.append(_read(run))
            elif adapter_kind(run) is None:
                left_out.append(f"{run} is no evaluation.")
        left_out += [f"{directory}, {failure}" for failure in failures]
    if not found:
        trained = any(adapter_kind(run) for run in seen)
        remedy = f"Evaluate its runs first: cptlab evaluate runs={directories[0]}" if trained else "Give another one."
        raise UserError(f"{' and '.join(map(str, directories))} holds no finished evaluation. {remedy}")
    groups: dict[tuple[str, str], list[_Read]] = {}
    for one in found:
        groups.setdefault((one.about, one.scorer), []).append(one)
    return [_merge(some) for some in groups.values()], left_out


def _read(run: Path) -> _Read:
    evaluation = read_evaluation(run)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    record, training = metrics.get("run") or {}, metrics.get("training") or {}
    runs = {name: (parts or {}).get("run") for name, parts in (metrics.get("parts") or {}).items()}
    replicates = []
    for system, programs in evaluation.systems.items():
        trained: Mapping[str, Any] | None = training.get(system)
        counts = {task.id: len(programs[task.id]) for task in evaluation.tasks}
        values = per_task(evaluation.tasks, programs, evaluation.ks or allowed_ks(counts))
        seed = (None if trained is None else trained.get("seed"), metrics.get("seed"))
        facts = facts_of(system, record, trained)
        replicates.append(Replicate(facts, seed, values, run, system, runs.get(system)))
    benchmark, split = metrics.get("benchmark"), metrics.get("split")
    about = f"{benchmark}{f', {split} tasks' if split else ''}"
    if evaluation.scorer != PYLINT:
        about += f", {label_of(evaluation.scorer)} scores"
    tasks = {task.id: task.difficulty for task in evaluation.tasks}
    scorer = json.dumps(metrics.get("scorer"), sort_keys=True)
    return _Read(replicates, tasks, about, str(benchmark), evaluation.samples_per_task, scorer)


def _merge(found: Sequence[_Read]) -> SweepResults:
    """Put the replicates of evaluations on one benchmark under their configurations, on the tasks that all of them have."""
    first, notes = found[0], []
    shared = [task for task in first.tasks if all(task in other.tasks for other in found)]
    if not shared:
        raise UserError(f"The evaluations on {first.about} have no task in common. Report them one by one.")
    most = max(len(one.tasks) for one in found)
    if len(shared) < most:
        notes.append(f"Figures are over the {len(shared)} tasks that all evaluations have, of up to {most}.")
    every = [one for read in found for one in read.replicates]
    named = label_all([one.facts for one in every])
    replicates: dict[str, dict[Seed, Replicate]] = {}
    for one, facts in zip(every, named, strict=True):
        there = replicates.setdefault(facts.label, {})
        earlier = there.get(one.seed)
        if earlier is not None and earlier.values != one.values:
            notes.append(
                f"{earlier.directory} and {one.directory} have other programs of {facts.label} under the same seed; "
                "the later one counts."
            )
        if earlier is None or earlier.values != one.values:
            there[one.seed] = Replicate(facts, one.seed, one.values, one.directory, one.system, one.training_run)
    of_all = [set(one.values) for some in replicates.values() for one in some.values()]
    metrics = tuple(name for name in every[0].values if all(name in names for names in of_all))
    levels = {level: tuple(task for task in shared if first.tasks[task] == level) for level in DIFFICULTIES}
    levels = {level: tasks for level, tasks in levels.items() if tasks}
    if tuple(shared) not in levels.values():
        levels["all"] = tuple(shared)
    untrained_first = sorted(replicates.items(), key=lambda item: next(iter(item[1].values())).facts.trained)
    samples = " or ".join(dict.fromkeys(read.samples for read in found))
    return SweepResults(first.about, first.benchmark, dict(untrained_first), levels, metrics, samples, tuple(notes))


def _in_order(run: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in run.parts]
