"""The evaluations behind a table, read as one: a system for each row, its metrics over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.over_seeds import compare_seeds, summarise_seeds
from cptlab.metrics.summary import Programs
from cptlab.records import Task
from cptlab.reporting.evaluation import Evaluation, Metrics, read_evaluation
from cptlab.reporting.tables import metrics_of
from cptlab.settings.record_plan import PlannedTable


@dataclass(frozen=True)
class Results:
    """`evaluation` has a system for each row, with the programs of the first seed; `seeds[row]` has those of every seed.

    `metrics` is over all seeds; changes are against the row that `reference` gives.
    """

    evaluation: Evaluation
    seeds: Mapping[str, Sequence[Programs]]
    metrics: Metrics

    @property
    def seed_note(self) -> str:
        number = max(map(len, self.seeds.values()))
        return "" if number == 1 else f" Means over {number} seeds; intervals are over seeds and tasks."


def read_results(table: PlannedTable, record: Path) -> Results:
    """Read the rows of a table of evaluations. Raises UserError where rows have no task in common."""
    found = {row.label: [read_evaluation(record / step.name) for step in row.steps] for row in table.rows}
    every = [evaluation for of_row in found.values() for evaluation in of_row]
    tasks = _shared_tasks(every, table.name)
    allowed = set.intersection(*(set(evaluation.ks or ()) for evaluation in every))
    ks = tuple(sorted(allowed))
    seeds = {label: [_only_system(one) for one in of_row] for label, of_row in found.items()}
    against = {label: reference(label, table.against, list(seeds)) for label in seeds}
    first = every[0]
    merged = replace(
        first,
        tasks=tasks,
        systems={label: {task.id: of_row[0][task.id] for task in tasks} for label, of_row in seeds.items()},
        baseline=next(iter(against.values())),
        ks=ks,
        cost={label: _mean_cost(of_row) for label, of_row in found.items()},
    )
    metrics = Metrics(
        {label: summarise_seeds(tasks, of_row, ks) for label, of_row in seeds.items()},
        {
            label: compare_seeds(tasks, seeds[other], seeds[label], ks)
            for label, other in against.items()
            if other != label
        },
    )
    return Results(merged, seeds, metrics)


def reference(label: str, against: str | None, labels: Sequence[str]) -> str:
    """Return the row that a row is compared with: `against`, or, where labels begin with a model, `<model> <against>`."""
    of_model = f"{label.rpartition(' ')[0]} {against}"
    return against if against in labels else of_model if of_model in labels else labels[0]


def figures_of(results: Results) -> list[dict[str, Any]]:
    """Return every metric of every row and difficulty with its interval and its change, as figures.json has them."""
    out = []
    for label, levels in results.metrics.results.items():
        for level in results.evaluation.levels:
            shifts = results.metrics.differences.get(label, {}).get(level, {})
            for metric in metrics_of({label: levels}):
                out.append(
                    figure(
                        label, metric.name, levels[level], len(results.seeds[label]), difficulty=level, change=shifts
                    )
                )
    return out


def figure(
    row: str,
    metric: str,
    found: Mapping[str, Any],
    seeds: int,
    *,
    difficulty: str = "all",
    change: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return one figure as figures.json has it; `found` and `change` map a metric to its value, <metric>_ci to its interval."""
    low, high = found.get(f"{metric}_ci") or (None, None)
    out = {"row": row, "difficulty": difficulty, "metric": metric, "tasks": found.get("tasks"), "seeds": seeds,
           "value": found[metric], "lo": low, "hi": high}  # fmt: skip
    if change is not None and change.get(metric) is not None:
        low, high = change.get(f"{metric}_ci") or (None, None)
        out |= {"change": change[metric], "change_lo": low, "change_hi": high}
    return out


def _only_system(evaluation: Evaluation) -> Programs:
    name, *others = evaluation.systems
    if others:
        raise UserError(
            f"{evaluation.directory} has {len(others) + 1} systems, and a row of a table is one of them. Name one."
        )
    return evaluation.systems[name]


def _shared_tasks(evaluations: Sequence[Evaluation], table: str) -> tuple[Task, ...]:
    """Return the tasks that all have, in the order of the first. Equal ids must be equal tasks."""
    by_id = [{task.id: task.tests for task in evaluation.tasks} for evaluation in evaluations]
    shared = tuple(task for task in evaluations[0].tasks if all(task.id in ids for ids in by_id))
    if not shared:
        raise UserError(f"The rows of {table} have no task in common. Evaluate them on the same tasks.")
    for task in shared:
        if any(ids[task.id] != task.tests for ids in by_id):
            raise UserError(
                f"The rows of {table} have different tests for task {task.id}. Evaluate them on equal tasks."
            )
    return shared


def _mean_cost(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    found = [cost for evaluation in evaluations for cost in evaluation.cost.values()]
    return {unit: sum(cost[unit] for cost in found) / len(found) for unit in (found[0] if found else {})}
