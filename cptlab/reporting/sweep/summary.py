"""Means over seeds and tasks with 95% intervals, and differences that are paired by seed and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cptlab.metrics.over_seeds import seeds_by_tasks
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.metrics.summary import Summary
from cptlab.reporting.sweep.results import Replicate, Seed, SweepResults


def summarise_sweep(results: SweepResults) -> dict[str, Summary]:
    """Return `summary[configuration][difficulty][metric]` and `<metric>_ci`; `<metric>_seeds`: the mean of each seed."""
    return {
        label: {
            level: _figures(results.metrics, [[one.values for one in found.values()]], tasks)
            for level, tasks in results.levels.items()
        }
        for label, found in results.replicates.items()
    }


def compare_sweep(results: SweepResults, reference: str) -> dict[str, Summary]:
    """Return each other configuration minus the reference in the same form.

    The same seed is one pair; a system without training, such as base, pairs with every training seed. Configurations
    that share no seed with the reference are left out.
    """
    before, differences = results.replicates[reference], {}
    for label, after in results.replicates.items():
        pairs = _pairs(before, after)
        if label == reference or not pairs:
            continue
        sides = [[one.values for one in side] for side in zip(*pairs, strict=True)]
        differences[label] = {level: _figures(results.metrics, sides, tasks) for level, tasks in results.levels.items()}
    return differences


def _pairs(before: Mapping[Seed, Replicate], after: Mapping[Seed, Replicate]) -> list[tuple[Replicate, Replicate]]:
    return [
        (one, other)
        for first, one in before.items()
        for second, other in after.items()
        if all(None in pair or pair[0] == pair[1] for pair in zip(first, second, strict=True))
    ]


def _figures(
    metrics: Sequence[str], sides: Sequence[Sequence[Mapping[str, Any]]], tasks: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of one side, or of the second minus the first. A side has the values of every seed."""
    row: dict[str, Any] = {"tasks": len(tasks), "seeds": len(sides[0])}
    for metric in metrics:
        table = seeds_by_tasks(metric, sides, tasks)
        row[metric] = row[f"{metric}_ci"] = row[f"{metric}_seeds"] = None
        if table is not None:
            row[metric], row[f"{metric}_ci"] = float(table.mean()), list(hierarchical_ci(table))
            row[f"{metric}_seeds"] = [float(mean) for mean in table.mean(axis=1)]
    return row
