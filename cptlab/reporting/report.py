"""Remake every table, every figure and the HTML report of an evaluation from its stored files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from cptlab.metrics.definitions import FAMILIES, SCORES
from cptlab.reporting import alt_texts, layout, tables
from cptlab.reporting.answers import advice, answers_table
from cptlab.reporting.curves import Stage, has_curves, read_curves
from cptlab.reporting.evaluation import Evaluation, Metrics, compute_metrics, read_evaluation
from cptlab.reporting.evaluation_page import page_of
from cptlab.reporting.issues import issues_table, top_issues_table
from cptlab.reporting.layout import Table
from cptlab.reporting.packing import TRAINING
from cptlab.reporting.page import Picture
from cptlab.storage.atomic import write_bytes, write_text

REPORT = "report.html"
CONSOLE_ISSUES = 12


def make_report(
    run_directory: str | os.PathLike,
    *,
    baseline: str | None = None,
    train_directory: str | os.PathLike | None = None,
    programs_per_task: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write tables/*.md and *.csv, figures/*.svg and *.png, and report.html into `run_directory`; return the page.

    Everything but the provenance and the cost is computed anew from the stored records, and the same records give the
    same bytes. Changes are counted against `baseline` (None: the first system). `train_directory` adds the training
    curves (None: those of the run that metrics.json names as `training_run`, where that directory still has them).
    `programs_per_task` limits the issue counts to that many parsing programs of each task (the paper takes ten).
    `progress` is called with 1 after each table, figure and the page.
    """
    evaluation = read_evaluation(run_directory, baseline)
    stages = _stages(evaluation) if train_directory is None else read_curves(train_directory)
    metrics = compute_metrics(evaluation)
    done = progress or (lambda count: None)
    shown, pictures = {}, {}
    for table in all_tables(evaluation, metrics, programs_per_task):
        write_text(evaluation.directory / "tables" / f"{table.name}.md", layout.to_markdown(table))
        write_text(evaluation.directory / "tables" / f"{table.name}.csv", layout.to_csv(table))
        shown[table.name] = table
        done(1)
    for name, alt, rendered in _pictures(evaluation, metrics, programs_per_task, stages):
        for kind, content in rendered.items():
            write_bytes(evaluation.directory / "figures" / f"{name}.{kind}", content)
        pictures[name] = Picture(rendered["svg"], alt)
        done(1)
    page = evaluation.directory / REPORT
    write_text(page, page_of(evaluation, metrics, shown, pictures))
    done(1)
    return page


def make_page(evaluation: Evaluation) -> str:
    """Return the HTML page of an evaluation, such as one that `cptlab.reporting.comparison.combine` made."""
    metrics = compute_metrics(evaluation)
    shown = {table.name: table for table in all_tables(evaluation, metrics)}
    drawn = _pictures(evaluation, metrics, None, ())
    return page_of(evaluation, metrics, shown, {name: Picture(files["svg"], alt) for name, alt, files in drawn})


def all_tables(evaluation: Evaluation, metrics: Metrics, programs_per_task: int | None = None) -> list[Table]:
    """Return a table for each family of metrics, differences, cost and pairs where there are any, and the counts."""
    out = [tables.family_table(evaluation, metrics.results, family) for family in FAMILIES]
    if evaluation.others:
        out.append(tables.differences_table(evaluation, metrics.differences))
    if evaluation.cost:
        out.append(tables.cost_table(evaluation, metrics.results))
    if any((evaluation.provenance.get("pair_statistics") or {}).values()):
        out.append(tables.pairs_table(evaluation))
    counts = issues_table(evaluation, programs_per_task), tables.verdicts_table(evaluation), answers_table(evaluation)
    return [*out, *counts]


def print_tables(
    run_directory: str | os.PathLike,
    file: TextIO | None = None,
    *,
    baseline: str | None = None,
    programs_per_task: int | None = None,
) -> None:
    """Print metrics and changes, cost, the commonest issues and the verdicts to `file` (None: standard output).

    What to do where many answers hold no program stands at the end.
    """
    evaluation = read_evaluation(run_directory, baseline)
    metrics = compute_metrics(evaluation)
    results, differences = metrics.results, metrics.differences
    *shown, messages = (tables.overview_table(evaluation, results, differences, family) for family in FAMILIES)
    if evaluation.cost:
        shown.append(tables.cost_table(evaluation, results))
    shown += [messages, top_issues_table(evaluation, CONSOLE_ISSUES, programs_per_task)]
    shown.append(tables.verdicts_table(evaluation))
    print("\n\n".join([*map(layout.to_text, shown), *advice(evaluation)]), file=file)


def _stages(evaluation: Evaluation) -> Sequence[Stage]:
    """Read the curves of a packed run, or those of the training run that the evaluation names."""
    named = evaluation.provenance.get("training_run")
    places = [evaluation.directory / TRAINING, *([named] if named else [])]
    return next((read_curves(place) for place in places if has_curves(place)), ())


def _pictures(
    evaluation: Evaluation, metrics: Metrics, programs_per_task: int | None, stages: Sequence[Stage]
) -> Iterator[tuple[str, str, dict[str, bytes]]]:
    """Yield each figure: its name, its alternative text, and its files by kind."""
    from cptlab.reporting import figures  # imports matplotlib, which reading and printing do without

    for family in SCORES:
        drawn = figures.render(figures.family_figure(evaluation, metrics.results, family))
        yield family.name, alt_texts.of_family(evaluation, metrics.results, family), drawn
    drawn = figures.render(figures.issues_figure(evaluation, programs_per_task))
    yield "issues", alt_texts.of_issues(evaluation, programs_per_task), drawn
    if stages:
        yield "training", alt_texts.of_training(stages), figures.render(figures.training_figure(stages))
