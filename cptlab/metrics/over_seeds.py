"""Summaries over several seeds of the same tasks: means over seeds and tasks, with intervals over both.

With one seed they are those of `cptlab.metrics.summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cptlab.metrics import summary
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.metrics.summary import Programs, Summary
from cptlab.records import Task

PerTask = Mapping[str, Mapping[str, float | None]]  # metric -> task id -> value


def summarise_seeds(tasks: Sequence[Task], seeds: Sequence[Programs], ks: Sequence[int] | None = None) -> Summary:
    """Return what `summary.summarise` does, of several evaluations of one system that differ in their seed alone."""
    if len(seeds) == 1:
        return summary.summarise(tasks, seeds[0], ks)
    return _summary(tasks, [summary.per_task(tasks, programs, ks) for programs in seeds])


def compare_seeds(
    tasks: Sequence[Task], baseline: Sequence[Programs], system: Sequence[Programs], ks: Sequence[int] | None = None
) -> Summary:
    """Return what `summary.compare` does: seed by seed, system minus baseline. One seed of either side goes with each of the other."""
    if len(baseline) == len(system) == 1:
        return summary.compare(tasks, baseline[0], system[0], ks)
    number = max(len(baseline), len(system))
    if {len(baseline), len(system)} - {1, number}:
        raise ValueError(f"seeds cannot be paired: {len(baseline)} and {len(system)}")
    before, after = ([summary.per_task(tasks, one, ks) for one in side] for side in (baseline, system))
    before, after = (side * (number if len(side) == 1 else 1) for side in (before, after))
    return _summary(tasks, [_minus(one, other) for one, other in zip(after, before, strict=True)])


def _minus(first: PerTask, second: PerTask) -> PerTask:
    return {
        metric: {task: _difference(value, second[metric][task]) for task, value in by_task.items()}
        for metric, by_task in first.items()
        if metric in second
    }


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _summary(tasks: Sequence[Task], seeds: Sequence[PerTask]) -> Summary:
    """A metric is over the tasks that have it under every seed."""
    out: Summary = {}
    for difficulty, chosen in summary.groups(tasks).items():
        row: dict[str, Any] = {}
        for metric in seeds[0]:
            columns = [[one[metric][task.id] for one in seeds] for task in chosen]
            values = np.array([column for column in columns if None not in column], dtype=np.float64).T
            row[metric] = float(values.mean()) if values.size else None
            row[f"{metric}_ci"] = list(hierarchical_ci(values)) if values.size else None
        row["tasks"] = len(chosen)
        out[difficulty] = row
    return out
