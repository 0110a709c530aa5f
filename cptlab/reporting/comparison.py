"""Systems of one or several evaluations in one table, each against the first, paired by task. Needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cptlab.errors import UserError
from cptlab.metrics.definitions import find_metric
from cptlab.metrics.summary import Outcomes, compare, summarise
from cptlab.records import Task
from cptlab.reporting import tables
from cptlab.reporting.evaluation import read_evaluation
from cptlab.reporting.layout import Table

SHOWN = tuple(map(find_metric, ("pylint_mean", "pylint_min", "pass@1")))


@dataclass(frozen=True)
class ComparedSystem:
    """Systems to compare: one of the evaluation in `directory`, or all of them in their order (system None).

    `label` names the row; None takes the system's name.
    """

    directory: Path
    system: str | None = None
    label: str | None = None


def compare_table(choices: Sequence[ComparedSystem]) -> Table:
    """Return one row for each system, with changes against the first.

    Raises UserError where two rows have the same label, a system does not exist, or tasks differ.
    """
    tasks, systems = _read(choices)
    (first, before), *_ = systems.items()
    rows, records = [], []
    for label, outcomes in systems.items():
        found = summarise(tasks, *outcomes, ks=[1])["all"]
        shift = None if label == first else compare(tasks, before, outcomes, ks=[1])["all"]
        cells = [label, str(len(next(iter(outcomes[0].values()))))]
        for metric in (metric.name for metric in SHOWN):
            cells += [tables.with_interval(metric, found), "–" if shift is None else tables.change(metric, shift)]
            low, high = shift[f"{metric}_ci"] if shift else (None, None)
            record = {"system": label, "metric": metric, "tasks": len(tasks), "value": found[metric]}
            record |= dict(zip(("lo", "hi"), found[f"{metric}_ci"], strict=True))
            records.append(record | {"change": shift and shift[metric], "change_lo": low, "change_hi": high})
        rows.append(tuple(cells))
    columns = ["System", "Samples"]
    for metric in SHOWN:
        columns += [tables.shown_label(metric), "change"]
    note = f"{tables.INTERVALS} Changes are against {first}, paired by task."
    return Table("compare", f"{len(tasks)} tasks", tuple(columns), tuple(rows), tuple(records), note=note)


def _read(choices: Sequence[ComparedSystem]) -> tuple[tuple[Task, ...], dict[str, Outcomes]]:
    """Return the tasks, and the outcomes of each system by its label, in order."""
    evaluations = {choice.directory: read_evaluation(choice.directory) for choice in choices}
    tasks = evaluations[choices[0].directory].tasks
    systems: dict[str, Outcomes] = {}
    for choice in choices:
        evaluation = evaluations[choice.directory]
        if _content(evaluation.tasks) != _content(tasks):
            raise UserError(
                f"The tasks of {choice.directory} are not those of the first run. Compare runs on equal tasks."
            )
        there = list(evaluation.systems)
        names = there if choice.system is None else [choice.system]
        if choice.system is not None and choice.system not in there:
            raise UserError(f"{choice.directory} has no system {choice.system!r}. Name one of {', '.join(there)}.")
        if choice.label is not None and len(names) > 1:
            raise UserError(f"{choice.label} stands for {', '.join(there)}. Name one: {choice.label}=RUN:SYSTEM.")
        for name in names:
            label = choice.label or name
            if label in systems:
                raise UserError(f"Two systems are called {label}. Give each a label of its own: LABEL=RUN:SYSTEM.")
            systems[label] = evaluation.outcomes(name)
    return tasks, systems


def _content(tasks: Sequence[Task]) -> list[tuple]:
    return [(task.id, task.tests) for task in tasks]
