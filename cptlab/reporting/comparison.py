"""Systems of one or several evaluations in one table, each against the first, paired by task. Needs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.definitions import PYLINT, Metric, find_metric
from cptlab.metrics.summary import compare, summarise
from cptlab.records import Task
from cptlab.reporting import tables
from cptlab.reporting.evaluation import Evaluation, StoredProgram, read_evaluation
from cptlab.reporting.layout import Table

SHOWN = ("pylint_mean", "pylint_min", "pass@1", "statements", "tokens", "pylint_errors", "not_parsed")


def shown_metrics(scorer: str) -> list[Metric]:
    """Return the metrics of the table. Only pylint's messages have a category of errors; of others all are counted."""
    messages = "pylint_errors" if scorer == PYLINT else f"{scorer}_messages"
    names = (messages if name == "pylint_errors" else name.replace(PYLINT, scorer) for name in SHOWN)
    return list(map(find_metric, names))


@dataclass(frozen=True)
class ComparedSystem:
    """Systems to compare: one of the evaluation in `directory`, or all of them in their order (system None).

    `label` names the row; None takes the system's name.
    """

    directory: Path
    system: str | None = None
    label: str | None = None


def compare_table(evaluation: Evaluation) -> Table:
    """Return one row for each metric of `SHOWN` and system, with changes against the first."""
    tasks, systems, first = evaluation.tasks, evaluation.systems, evaluation.baseline
    found = {label: summarise(tasks, programs, ks=[1])["all"] for label, programs in systems.items()}
    shifts = {label: compare(tasks, systems[first], systems[label], ks=[1])["all"] for label in evaluation.others}
    rows: list[tuple[str, ...]] = []
    records = []
    for metric in shown_metrics(evaluation.scorer):
        rows.append((tables.shown_label(metric),))
        for label, programs in systems.items():
            samples, shift = str(len(next(iter(programs.values())))), shifts.get(label)
            change = "–" if shift is None else tables.change(metric.name, shift)
            rows.append((label, samples, tables.with_interval(metric.name, found[label]), change))
            record = tables.record(label, "all", len(tasks), metric.name, found[label])
            moved = (
                (None,) * 3 if shift is None else (shift[metric.name], *(shift[f"{metric.name}_ci"] or (None, None)))
            )
            records.append(record | dict(zip(("change", "change_lo", "change_hi"), moved, strict=True)))
    note = f"{tables.INTERVALS} Changes are against {first}, paired by task."
    columns = ("System", "Samples", "Mean over tasks", "Change")
    return Table("compare", f"{len(tasks)} tasks", columns, tuple(rows), tuple(records), note=note)


def combine(choices: Sequence[ComparedSystem]) -> Evaluation:
    """Return systems of several evaluations as one, each under its label, in order; changes are against the first.

    Raises UserError where two systems have the same label, a system does not exist, or tasks differ.
    """
    evaluations = {choice.directory: read_evaluation(choice.directory) for choice in choices}
    first = evaluations[choices[0].directory]
    systems: dict[str, Mapping[str, tuple[StoredProgram, ...]]] = {}
    cost, facts = {}, {}
    for choice in choices:
        evaluation = evaluations[choice.directory]
        if _content(evaluation.tasks) != _content(first.tasks):
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
            if evaluation.scorer != first.scorer:
                raise UserError(
                    f"The programs of {choice.directory} are scored by {evaluation.scorer}, those of the first run by "
                    f"{first.scorer}. Evaluate both with one scorer."
                )
            settings = [one.provenance.get("scorer") for one in (first, evaluation)]
            if None not in settings and settings[0] != settings[1]:
                raise UserError(
                    f"The programs of {choice.directory} are scored by {evaluation.scorer} with other settings than those of "
                    "the first run (`scorer` in metrics.json). Evaluate both with the same."
                )
            systems[label] = evaluation.systems[name]
            facts[label] = {"run": str(choice.directory), "system": name} | _facts_of(evaluation, name)
            cost |= {label: evaluation.cost[name]} if name in evaluation.cost else {}
    known = [set(evaluation.ks or (1,)) for evaluation in evaluations.values()]
    ks = tuple(sorted(set.intersection(*known))) or (1,)
    return Evaluation(first.directory, first.tasks, systems, next(iter(systems)), facts, ks, cost, config="")


def _facts_of(evaluation: Evaluation, system: str) -> dict[str, Any]:
    """Return what metrics.json says of a system and of its run."""
    facts = evaluation.provenance
    found = {key: facts[key][system] for key in ("parts", "decoding") if system in (facts.get(key) or {})}
    return found | {key: facts[key] for key in ("backbone", "seed", "git") if key in facts}


def _content(tasks: Sequence[Task]) -> list[tuple]:
    return [(task.id, task.tests) for task in tasks]
