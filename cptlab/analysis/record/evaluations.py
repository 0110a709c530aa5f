"""Tables and figures of metrics by row and difficulty: CPT Tables I to V, VII to X and XIII, Fig. 6, 7, 9 and 10."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cptlab.analysis.record.drawing import Drawing
from cptlab.analysis.record.results import Results, figures_of, read_results
from cptlab.metrics.definitions import CORRECTNESS, QUALITY, Family
from cptlab.reporting import tables
from cptlab.reporting.figures import family_figure
from cptlab.reporting.layout import Table
from cptlab.reporting.tradeoff import tradeoff_figure
from cptlab.settings.record_plan import PlannedTable


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
    evaluation, found = results.evaluation, results.metrics.results
    note = "whiskers: 95% bootstrap interval" + (", over seeds and tasks" if results.seed_note else " over tasks")
    names = [metric.name for metric in tables.metrics_of(found)]
    picture = tradeoff_figure(evaluation.levels, found, names, table.against, table.title, note)
    return Drawing(figures_of(results), [_changes(table, results)], {table.name: picture} if picture else {})


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
