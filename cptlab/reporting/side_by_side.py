"""Programs of two systems side by side, chosen by a rule that leaves no room for picking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cptlab.metrics.definitions import label_of
from cptlab.records import Task
from cptlab.reporting.evaluation import Evaluation, StoredProgram


def rule(evaluation: Evaluation) -> str:
    """Say how the tasks and programs are chosen."""
    return (
        f"Of each difficulty: the tasks whose mean {label_of(evaluation.scorer)} score rose most, changed by the median, "
        "and fell most (or rose least). Of each task and system: the sample of median score."
    )


@dataclass(frozen=True)
class SideBySide:
    """One task, and of each system one program. `change` is the difference of the systems' mean scores on the task."""

    task: Task
    change: float
    programs: Mapping[str, StoredProgram]


def choose_tasks(evaluation: Evaluation, system: str) -> list[SideBySide]:
    """Choose up to three tasks of each difficulty by `rule`, for `system` against the baseline."""
    chosen = []
    levels = [level for level in evaluation.levels if level != "all"]
    for level in levels or ["all"]:
        ranked = sorted(evaluation.levels[level], key=lambda task: (-_change(evaluation, system, task), task.id))
        places = {0: None, (len(ranked) - 1) // 2: None, len(ranked) - 1: None}  # a set that keeps its order
        for place in places:
            task = ranked[place]
            both = (evaluation.baseline, system)
            programs = {name: median_program(evaluation.systems[name][task.id]) for name in both}
            chosen.append(SideBySide(task, _change(evaluation, system, task), programs))
    return chosen


def median_program(programs: Sequence[StoredProgram]) -> StoredProgram:
    """Return the program of (lower) median score, the first in stored order of equals."""
    ranked = sorted(programs, key=lambda program: program.quality.score)
    return ranked[(len(ranked) - 1) // 2]


def _change(evaluation: Evaluation, system: str, task: Task) -> float:
    means = [
        fmean(program.quality.score for program in evaluation.systems[name][task.id])
        for name in (evaluation.baseline, system)
    ]
    return means[1] - means[0]
