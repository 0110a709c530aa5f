"""Selective Prompt Anchoring: SPA Tables 1 to 3 and Fig. 2 to 4, from tunings of ω and measures of attention."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from cptlab.analysis.dilution.figures import dilution_figure
from cptlab.analysis.record.drawing import Drawing
from cptlab.analysis.record.results import figure
from cptlab.metrics.definitions import find_metric
from cptlab.metrics.over_seeds import compare_seeds, summarise_seeds
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.metrics.summary import Summary
from cptlab.records import Task
from cptlab.reporting import tables
from cptlab.reporting.evaluation import read_system
from cptlab.reporting.layout import Table
from cptlab.reporting.omega_curve import curve_figure, curve_table
from cptlab.reporting.omega_sweep import OmegaCurve
from cptlab.settings.record_plan import PlannedTable, Row
from cptlab.storage.jsonl import read_jsonl

OMEGA = "omega"  # the metric of figures.json


def omega(table: PlannedTable, record: Path) -> Drawing:
    """SPA Tables 1 and 2: the metric with and without anchoring, at the tuned ω, on tasks that did not choose it."""
    rows, records, figures = [], [], []
    for row in table.rows:
        found = _read(row, record)
        metric, omegas = found[0]["metric"], [_tuned(one)["omega"] for one in found]
        before, after, change = _on_test_tasks(row, record, found)
        rows.append((row.label, str(after["tasks"]), " ".join(f"{value:g}" for value in omegas),
                     tables.with_interval(metric, before), tables.with_interval(metric, after), tables.change(metric, change)))  # fmt: skip
        one = figure(row.label, metric, after, len(found), change=change)
        low, high = before[f"{metric}_ci"]
        plain = {"before": before[metric], "before_lo": low, "before_hi": high}
        figures += [one | plain | {"omegas": omegas}, _omega_figure(row, omegas)]
        records.append({"row": row.label, "omegas": omegas, "before": before[metric], **one})
    label = tables.shown_label(find_metric(metric))
    columns = ("Anchored", "Tasks", "Tuned ω", f"{label}, ω = 1", "tuned ω", "Change")
    note = f"ω of each seed, tuned on other tasks. {tables.INTERVALS} With several seeds it is over seeds and tasks."
    return Drawing(figures, [Table(table.name, table.title, columns, tuple(rows), tuple(records), 1, note=note)])


def best_omega(table: PlannedTable, record: Path) -> Drawing:
    """SPA Table 3: the tuned ω of each row and seed."""
    rows, records, figures = [], [], []
    for row in table.rows:
        tuned = [_tuned(one) for one in _read(row, record)]
        omegas = [one["omega"] for one in tuned]
        helps = sum(bool(one["helps"]) for one in tuned)
        rows.append(
            (row.label, " ".join(f"{value:g}" for value in omegas), f"{fmean(omegas):.2f}", f"{helps} of {len(tuned)}")
        )
        records.append({"row": row.label, "omegas": omegas, "mean": fmean(omegas), "helps": helps})
        figures.append(_omega_figure(row, omegas) | {"omegas": omegas, "helps": helps})
    columns = ("Model and benchmark", "Tuned ω of each seed", "Mean", "Better than 1")
    note = "Better than 1: on the tasks that chose it, by more than chance explains."
    return Drawing(figures, [Table(table.name, table.title, columns, tuple(rows), tuple(records), note=note)])


def omega_curve(table: PlannedTable, record: Path) -> Drawing:
    """SPA Fig. 4: the metric against ω, a line for each row, over all seeds."""
    values: dict[str, dict[float, dict[str, Any]]] = {}
    changes: dict[str, dict[float, dict[str, Any]]] = {}
    figures: list[dict[str, Any]] = []
    for row in table.rows:
        found = _read(row, record)
        metric, tuned = found[0]["metric"], [_tuned(one) for one in found]
        by_omega = {
            float(text): np.array([one["per_task"][text] for one in tuned])
            for text in tuned[0]["per_task"]
            if all(text in one["per_task"] for one in tuned)
        }  # ω -> [seeds, tasks]
        values[row.label] = {value: _mean(metric, by_omega[value]) for value in sorted(by_omega)}
        changes[row.label] = {value: _mean(metric, by_omega[value] - by_omega[1.0]) for value in sorted(by_omega)}
        figures += [
            figure(
                f"{row.label} ω = {value:g}",
                metric,
                one,
                len(found),
                change=changes[row.label][value] if value != 1 else None,
            )
            | {"omega": value}
            for value, one in values[row.label].items()
        ]
        figures.append(
            {"row": row.label, "difficulty": "all", "metric": "unimodal", "tasks": by_omega[1.0].shape[1], "seeds": len(found),
             "value": fmean(bool(one["unimodal"]) for one in tuned), "lo": None, "hi": None}
        )  # fmt: skip
    about = f"{table.title}, the tasks that choose ω"
    curve = OmegaCurve((metric,), values, changes, about)
    shown = curve_table(curve)
    shown = Table(table.name, table.title, shown.columns, shown.rows, shown.records, shown.labels, note=shown.note)
    return Drawing(figures, [shown], {table.name: curve_figure(curve)})


def attention(table: PlannedTable, record: Path) -> Drawing:
    """SPA Fig. 2: the share of the last layer's attention on the prompt."""
    return _dilution(table, record, "attention")


def gradient(table: PlannedTable, record: Path) -> Drawing:
    """SPA Fig. 3: the share of the gradient on the prompt."""
    return _dilution(table, record, "gradient")


def _dilution(table: PlannedTable, record: Path, series: str) -> Drawing:
    """Draw the first seed of each row; programs are greedy, so seeds differ in nothing."""
    found = {
        row.label: json.loads((record / row.steps[0].name / "dilution.json").read_text("utf-8")) for row in table.rows
    }
    rows, records, figures = [], [], []
    for label, one in found.items():
        change = one["change"][series]
        told = {
            f"{series}_change": change["mean"],
            f"{series}_change_ci": [change["low"], change["high"]],
            "tasks": one["tasks"],
        }
        per_token = change["per_token"]
        factor = {f"{series}_per_token": per_token["mean"], f"{series}_per_token_ci": [per_token["low"], per_token["high"]], "tasks": one["tasks"]}  # fmt: skip
        figures += [figure(label, f"{series}_change", told, 1), figure(label, f"{series}_per_token", factor, 1)]
        cells = [f"{100 * change[end]:+.1f}" if change[end] is not None else "–" for end in ("mean", "low", "high")]
        rows.append((label, str(one["tasks"]), f"{cells[0]} [{cells[1]}, {cells[2]}]", f"{change['falls_in']} of {one['change']['tasks']}", _factor(per_token)))  # fmt: skip
        records.append({"row": label, "tasks": one["tasks"], **told, **factor, "falls_in": change["falls_in"]})
    columns = ("Model", "Tasks", "Second half minus first (points)", "Falls in", "Per token")
    note = f"{tables.INTERVALS} Per token: the factor by which a prompt token's score, relative to a generated one's, changes from "
    note += "the first half to the second; 1: the share falls only because the text grows."
    about = next(iter(found.values()))["about"]
    picture = dilution_figure({label: one["by_token"] for label, one in found.items()}, series, about)
    shown = Table(table.name, table.title, columns, tuple(rows), tuple(records), note=note)
    return Drawing(figures, [shown], {table.name: picture})


def _factor(found: Mapping[str, float | None]) -> str:
    if None in (found["mean"], found["low"], found["high"]):
        return "–"
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _read(row: Row, record: Path) -> list[dict[str, Any]]:
    return [json.loads((record / step.name / "omega.json").read_text(encoding="utf-8")) for step in row.steps]


def _tuned(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of the one system of a tuning."""
    return next(iter(found["systems"].values()))


def _on_test_tasks(row: Row, record: Path, found: Sequence[Mapping[str, Any]]) -> tuple[Any, Any, Any]:
    """Return the metrics at ω = 1, at the tuned ω, and their difference, over all seeds, from the stored programs."""
    if len(found) == 1:
        test = _tuned(found[0])["test"]
        return test["before"], test["after"], test["change"]
    sides: list[list[Any]] = [[], []]
    for step, one in zip(row.steps, found, strict=True):
        run, name = record / step.name, next(iter(one["systems"]))
        tasks = tuple(read_jsonl(run / "tasks.jsonl", Task))
        for side, value in zip(sides, (1, _tuned(one)["omega"]), strict=True):
            side.append(read_system(run / name / f"omega_{value:g}", tasks))
    reported = [task for task in tasks if task.id in set(found[0]["test_tasks"])]
    ks = sorted({1, find_metric(found[0]["metric"]).samples})
    summaries: list[Summary] = [summarise_seeds(reported, side, ks) for side in sides]
    return summaries[0]["all"], summaries[1]["all"], compare_seeds(reported, sides[0], sides[1], ks)["all"]


def _mean(metric: str, values: np.ndarray) -> dict[str, Any]:
    return {metric: float(values.mean()), f"{metric}_ci": list(hierarchical_ci(values)), "tasks": values.shape[1]}


def _omega_figure(row: Row, omegas: Sequence[float]) -> dict[str, Any]:
    return {"row": row.label, "difficulty": "all", "metric": OMEGA, "tasks": None, "seeds": len(omegas), "value": fmean(omegas), "lo": min(omegas), "hi": max(omegas)}  # fmt: skip
