"""What rows cost: CPT Table VI, and the table of all baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from cptlab.analysis.record.drawing import Drawing
from cptlab.analysis.record.results import figure, figures_of, read_results
from cptlab.metrics.definitions import find_metric
from cptlab.reporting import tables
from cptlab.reporting.layout import Table
from cptlab.settings.record_plan import PlannedTable, Row

NUMBERS = ("trainable_parameters", "parameters", "epochs", "minutes_per_epoch", "training_minutes")
SHOWN = ("pylint_mean", "pylint_min", "pass@1")


def training_cost(table: PlannedTable, record: Path) -> Drawing:
    """CPT Table VI: trainable parameters of all, and minutes an epoch, as a mean over the seeds."""
    rows, records, figures = [], [], []
    for row in table.rows:
        cost = read_cost(row, record)
        records.append({"row": row.label, **cost})
        share = f"{_count(cost['trainable_parameters'])} / {_count(cost['parameters'])}"
        rows.append(
            (
                row.label,
                share,
                _number(cost["minutes_per_epoch"]),
                _number(cost["epochs"], 0),
                _number(cost["training_minutes"]),
            )
        )
        figures += [figure(row.label, name, cost, len(row.steps)) for name in NUMBERS if cost[name] is not None]
    columns = ("Method", "Trainable / all parameters", "Minutes an epoch", "Epochs", "Minutes in all")
    note = "Parameters of a prefix while it trains; the exported one is smaller. Minutes: mean over seeds, with validation, on "
    note += f"{_machine(table, record)}. –: the training was killed on the way, so its time is not known."
    return Drawing(figures, [Table(table.name, table.title, columns, tuple(rows), tuple(records), note=note)])


def baselines(table: PlannedTable, record: Path) -> Drawing:
    """Every row's scores with its change against the first, and what it costs to train and to draw a program."""
    results = read_results(table, record)
    evaluation, metrics = results.evaluation, results.metrics
    level = list(evaluation.levels)[-1]
    rows, records, figures = [], [], figures_of(results)
    for row in table.rows:
        cost, drawn = read_cost(row, record), evaluation.cost.get(row.label) or {}
        found, shift = metrics.results[row.label][level], metrics.differences.get(row.label, {}).get(level, {})
        scores = [_with_change(metric, found, shift) for metric in SHOWN]
        rows.append((row.label, *scores, _count(cost["trainable_parameters"]), _number(cost["training_minutes"]),
                     _number(drawn.get("programs"), 0), _number(drawn.get("tokens"), 0)))  # fmt: skip
        costs = cost | {"programs_drawn": drawn.get("programs"), "tokens_drawn": drawn.get("tokens")}
        records.append({"row": row.label, **{metric: found[metric] for metric in SHOWN}, **costs})
        figures += [
            figure(row.label, name, costs, len(row.steps)) for name, value in costs.items() if value is not None
        ]
    columns = ("Method", *(tables.shown_label(find_metric(metric)) for metric in SHOWN), "Trainable parameters",
               "Minutes of training", "Programs drawn", "Tokens drawn")  # fmt: skip
    note = f"Behind a score: its change against {table.against}, paired by task, with the 95% interval. Drawn: for each program "
    note += f"that is kept. Minutes on {_machine(table, record)}, the pairs not counted, which all of them share.{results.seed_note}"
    title = f"{table.title}; {len(evaluation.tasks)} tasks, {evaluation.samples_per_task}"
    return Drawing(figures, [Table(table.name, title, columns, tuple(rows), tuple(records), note=note)])


def overhead(table: PlannedTable, record: Path) -> Drawing:
    """Time to sample a token, of each row and against the row that the table names, as a mean over the seeds."""
    times = {row.label: [_seconds_per_token(record / step.name) for step in row.steps] for row in table.rows}
    rows, records, figures = [], [], []
    for label, found in times.items():
        pairs = zip(found, times[table.against or next(iter(times))], strict=True)
        ratios = [one / other for one, other in pairs if one is not None and other is not None]
        known = [1000 * one for one in found if one is not None]
        ends = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
        rows.append((label, _number(_mean(known)), f"{fmean(ratios):.2f}{ends}" if ratios else "–"))
        records.append({"row": label, "ms_per_token": _mean(known), "times": _mean(ratios)})
        if ratios:
            figures.append(
                figure(label, "times", {"times": fmean(ratios), "times_ci": [min(ratios), max(ratios)]}, len(ratios))
            )
    columns = ("System", "Milliseconds a token", f"Times {table.against}")
    note = f"On {_machine(table, record)}; in brackets: lowest and highest of the seeds. –: its programs were stored before, or the "
    note += "run was killed on the way, so the time is not known."
    return Drawing(figures, [Table(table.name, table.title, columns, tuple(rows), tuple(records), note=note)])


def _seconds_per_token(run: Path) -> float | None:
    facts = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (system,) = facts["systems"]
    seconds, cost = (facts.get("sampling_seconds") or {}).get(system), facts["cost"][system]
    programs = facts["n"] * facts["results"][system]["all"]["tasks"]
    return seconds / (programs * cost["tokens"]) if seconds and cost["tokens"] else None


def read_cost(row: Row, record: Path) -> dict[str, Any]:
    """Return what the trainings of a row took, as means over its seeds; None for what is not known or does not apply."""
    trained = [step.needs for step in row.steps if step.needs is not None]
    found = [_of_run(record / step.name) for step in trained]
    means = {name: _mean([one[name] for one in found if one[name] is not None]) for name in NUMBERS}
    return {
        name: value if name.endswith(("minutes", "epoch")) or value is None else int(value)
        for name, value in means.items()
    }


def _of_run(run: Path) -> dict[str, Any]:
    facts = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    seconds, epochs = facts.get("training_seconds"), facts.get("epochs")
    return {
        "trainable_parameters": facts["trainable_parameters"],
        "parameters": (facts.get("estimate") or {}).get("parameters"),
        "epochs": epochs,
        "minutes_per_epoch": seconds / 60 / epochs if seconds and epochs else None,
        "training_minutes": seconds / 60 if seconds else None,
    }


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def _machine(table: PlannedTable, record: Path) -> str:
    facts = json.loads((record / table.steps()[0].name / "metrics.json").read_text(encoding="utf-8"))
    machine = facts.get("machine") or {}
    return machine.get("gpu") or f"{machine.get('cores', '?')} CPU cores"


def _with_change(metric: str, found: Mapping[str, Any], shift: Mapping[str, Any]) -> str:
    change = f" ({tables.change(metric, shift)})" if shift else ""
    return f"{tables.value(metric, found)}{change}"


def _count(number: float | None) -> str:
    """Return '3.15M', '24.6K', '0'."""
    if number is None:
        return "–"
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return str(int(number))


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
