"""Systems of several evaluations in one table, each against the first, paired by task. Needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cptlab.errors import UserError
from cptlab.metrics.summary import allowed_ks, compare, summarise
from cptlab.records import Task
from cptlab.reporting import tables
from cptlab.reporting.evaluation import outcomes_of, read_evaluation
from cptlab.reporting.layout import Table

METRICS = ("pylint_mean", "pylint_min", "pass@1")
HEADS = {"pylint_mean": "mean pylint", "pylint_min": "min pylint", "pass@1": "pass@1 (%)"}


def compare_table(named: Sequence[tuple[str, Path, str | None]]) -> Table:
    """One row for each (label, run directory, system or None); UserError where their tasks differ."""
    labels = [label for label, _, _ in named]
    if len(set(labels)) < len(labels):
        raise UserError("Two systems have the same label. Give each its own.")
    tasks, first, rows, records = [], None, [], []
    for label, directory, system in named:
        own, judged = outcomes_of(read_evaluation(directory))
        system = system or next(reversed(judged))
        if system not in judged:
            raise UserError(f"{directory} has no system {system!r}, but {', '.join(judged)}. Name one of these.")
        if tasks and not _same(tasks, own):
            raise UserError(f"The tasks of {directory} are not those of the first run. Compare runs on equal tasks.")
        answers = judged[system]
        ks = allowed_ks({task.id: len(answers[0][task.id]) for task in own}, [1])
        figures, changes = summarise(own, *answers, ks=ks)["all"], None
        if first is None:
            tasks, first = own, answers
        else:
            changes = compare(tasks, first, answers, ks=ks)["all"]
        cells = [label, str(len(next(iter(answers[0].values()))))]
        for metric in METRICS:
            cells += [tables.with_interval(metric, figures), "–" if changes is None else tables.change(metric, changes)]
            ends = (figures[f"{metric}_ci"], changes[f"{metric}_ci"] if changes else (None, None))
            records.append({
                "system": label, "metric": metric, "tasks": len(tasks), "value": figures[metric], "lo": ends[0][0],
                "hi": ends[0][1], "change": changes[metric] if changes else None, "change_lo": ends[1][0],
                "change_hi": ends[1][1],
            })  # fmt: skip
        rows.append(tuple(cells))
    columns = ["System", "Samples"]
    for metric in METRICS:
        columns += [HEADS[metric], "change"]
    note = f"{tables.INTERVALS} Changes are against {labels[0]}, paired by task."
    return Table("compare", f"{len(tasks)} tasks", tuple(columns), tuple(rows), tuple(records), note=note)


def _same(one: Sequence[Task], two: Sequence[Task]) -> bool:
    return [(task.id, task.tests) for task in one] == [(task.id, task.tests) for task in two]
