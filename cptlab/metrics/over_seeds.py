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
    return _summary(tasks, [[summary.per_task(tasks, programs, ks) for programs in seeds]])


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
    return _summary(tasks, [before, after])


def seeds_by_tasks(metric: str, sides: Sequence[Sequence[PerTask]], tasks: Sequence[str]) -> np.ndarray | None:
    """Return the values [seeds, tasks] of one side, or the second side minus the first; a side has one entry a seed.

    A metric is over the tasks that have it under every seed of every side. None where there are none.
    """
    there = [task for task in tasks if all(one[metric][task] is not None for side in sides for one in side)]
    if not there:
        return None
    tables = [np.array([[one[metric][task] for task in there] for one in side], dtype=np.float64) for side in sides]
    return tables[0] if len(tables) == 1 else tables[1] - tables[0]


def _summary(tasks: Sequence[Task], sides: Sequence[Sequence[PerTask]]) -> Summary:
    out: Summary = {}
    metrics = [metric for metric in sides[-1][0] if metric in sides[0][0]]
    for difficulty, chosen in summary.groups(tasks).items():
        row: dict[str, Any] = {}
        for metric in metrics:
            values = seeds_by_tasks(metric, sides, [task.id for task in chosen])
            row[metric] = None if values is None else float(values.mean())
            row[f"{metric}_ci"] = None if values is None else list(hierarchical_ci(values))
        row["tasks"] = len(chosen)
        out[difficulty] = row
    return out
