"""Tables and figures of metrics by row and difficulty: CPT Tables I to V, VII to X and XIII, Fig. 6, 7, 9 and 10."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from cptlab.analysis.record.drawing import Drawing
from cptlab.analysis.record.results import Results, figures_of, read_results
from cptlab.metrics.definitions import CORRECTNESS, QUALITY, Family, find_metric
from cptlab.reporting import tables
from cptlab.reporting.figures import add_captions, family_figure
from cptlab.reporting.layout import Table
from cptlab.reporting.style import COLOURS, STYLE
from cptlab.settings.record_plan import PlannedTable

SCORES = ("pylint_min", "pylint_mean", "pylint_max")


def quality(table: PlannedTable, record: Path) -> Drawing:
    """Pylint scores, mean, max and min, for each difficulty."""
    return _families(table, record, QUALITY)


def correctness(table: PlannedTable, record: Path) -> Drawing:
    """pass@k for each difficulty."""
    return _families(table, record, CORRECTNESS)


def quality_and_correctness(table: PlannedTable, record: Path) -> Drawing:
    """Both, one table below the other."""
    return _families(table, record, QUALITY, CORRECTNESS)


def tradeoff(table: PlannedTable, record: Path) -> Drawing:
    """CPT Fig. 10: a panel for each difficulty and score, pass@k to the right, the score upwards."""
    results = read_results(table, record)
    metrics = tables.metrics_of(results.metrics.results, CORRECTNESS)
    k = metrics[min(1, len(metrics) - 1)].name  # pass@5 where there is one, as in the claims
    return Drawing(figures_of(results), [_changes(table, results)], {table.name: _scatter(table, results, k)})


def _families(table: PlannedTable, record: Path, *families: Family) -> Drawing:
    results = read_results(table, record)
    found = results.metrics.results
    shown = []
    for family in families:
        one = tables.family_table(results.evaluation, found, family)
        name = table.name if len(families) == 1 else f"{table.name}_{family.name}"
        title = f"{table.title}. {one.title}"
        shown.append(replace(one, name=name, title=title, note=one.note + results.seed_note))
    pictures = {
        one.name: family_figure(results.evaluation, found, family) for one, family in zip(shown, families, strict=True)
    }
    return Drawing(figures_of(results), [*shown, _changes(table, results)], pictures)


def _changes(table: PlannedTable, results: Results) -> Table:
    """Return every row's change against the row that the table names, paired by task."""
    differences = results.metrics.differences
    evaluation = replace(
        results.evaluation,
        systems={name: found for name, found in results.evaluation.systems.items() if name in differences},
    )
    found = tables.differences_table(replace(evaluation, baseline=""), differences)
    return replace(
        found,
        name="changes",
        title=f"{table.title}: changes against {table.against}, paired by task",
        note=found.note + results.seed_note,
    )


def _scatter(table: PlannedTable, results: Results, k: str) -> Any:
    levels, found = results.evaluation.levels, results.metrics.results
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(levels), 2.9 * len(SCORES)), layout="constrained")
        panels = figure.subplots(len(SCORES), len(levels), squeeze=False)
        for line, score in zip(panels, SCORES, strict=True):
            for axes, level in zip(line, levels, strict=True):
                for i, (label, summary) in enumerate(found.items()):
                    x, (x_low, x_high) = 100 * summary[level][k], (100 * end for end in summary[level][f"{k}_ci"])
                    y, (y_low, y_high) = summary[level][score], summary[level][f"{score}_ci"]
                    axes.errorbar(
                        [x], [y],
                        xerr=[[max(0.0, x - x_low)], [max(0.0, x_high - x)]],
                        yerr=[[max(0.0, y - y_low)], [max(0.0, y_high - y)]],
                        fmt="o" if label == table.against else "s", color=COLOURS[i % len(COLOURS)],
                        elinewidth=0.7, alpha=0.9, markersize=7, label=label,
                    )  # fmt: skip
                axes.set_title(level)
                axes.set_xlabel(f"{find_metric(k).label} (%)")
                axes.set_ylabel(find_metric(score).label)
                axes.grid(True, axis="both")
        note = "points: means over tasks; whiskers: 95% bootstrap interval; right and up is better"
        add_captions(figure, table.title, note + results.seed_note.lower().rstrip("."), panels[0][0])
    return figure
