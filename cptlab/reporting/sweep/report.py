"""The report of sweeps: every table and figure of their evaluations in files, and one page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cptlab.errors import UserError
from cptlab.metrics.summary import Summary
from cptlab.reporting import layout, tables
from cptlab.reporting.layout import Table
from cptlab.reporting.page import Link, Picture, Section, render_page
from cptlab.reporting.sweep.configurations import find_reference
from cptlab.reporting.sweep.results import SweepResults, read_sweeps
from cptlab.reporting.sweep.summary import compare_sweep, summarise_sweep
from cptlab.reporting.sweep.tables import all_tables, console_tables, differences_table
from cptlab.storage.atomic import write_bytes, write_text

REPORT = "report.html"
HEADINGS = {"quality": "Code quality", "correctness": "Functional correctness", "differences": "Changes",
            "seeds": "Seeds", "runs": "Runs"}  # fmt: skip
KATA = "kata is a synthetic benchmark: these figures say nothing about any other model or benchmark."


@dataclass(frozen=True)
class SweepReport:
    """What was made of one benchmark: its tables and figures by name, and the configuration of the changes."""

    results: SweepResults
    summary: Mapping[str, Summary]
    differences: Mapping[str, Summary]
    reference: str
    tables: Mapping[str, Table]
    pictures: Mapping[str, Mapping[str, bytes]]
    alt: str


def make_sweep_report(
    directories: Sequence[Path], output: Path, against: str | None = None, defaults: Mapping[str, str] | None = None
) -> tuple[list[SweepReport], list[str]]:
    """Write tables/*.md and *.csv, figures/*.svg and *.png, and report.html into `output`.

    Returns what was made, one for each benchmark, and sentences on what was left out. `against` names the configuration
    that changes are counted against; None: the one of the default choices, whose files `defaults` has by group. The same
    stored files give the same bytes. Raises UserError where nothing is there to report, and for an unknown `against`.
    """
    every, left_out = read_sweeps(directories)
    reports = []
    for results in every:
        name = "" if len(every) == 1 else f"{re.sub('[^a-z0-9]+', '_', results.about.lower()).strip('_')}_"
        made = _make(results, output, against, defaults or {}, name)
        for table in made.tables.values():
            write_text(output / "tables" / f"{table.name}.md", layout.to_markdown(table))
            write_text(output / "tables" / f"{table.name}.csv", layout.to_csv(table))
        for picture, kinds in made.pictures.items():
            for kind, content in kinds.items():
                write_bytes(output / "figures" / f"{picture}.{kind}", content)
        reports.append(made)
    write_text(output / REPORT, _page(reports, left_out, output))
    return reports, left_out


def _make(
    results: SweepResults, output: Path, against: str | None, defaults: Mapping[str, str], name: str
) -> SweepReport:
    from cptlab.reporting.figures import render  # imports matplotlib
    from cptlab.reporting.tradeoff import tradeoff_figure, tradeoff_text

    reference = find_reference(results.facts, defaults) if against is None else against
    if reference not in results.replicates:
        raise UserError(f"There is no configuration {reference!r}. Choose one of {', '.join(results.replicates)}.")
    summary = summarise_sweep(results)
    differences = compare_sweep(results, reference)
    made = {table.name: table for table in all_tables(results, summary, differences, reference, output, name)}
    title, note = f"Quality against correctness, {results.about}", "whiskers: 95% interval over seeds and tasks"
    figure = tradeoff_figure(results.levels, summary, results.metrics, reference, title, note)
    pictures = {} if figure is None else {f"{name}tradeoff": render(figure)}
    alt = "" if figure is None else tradeoff_text(results.levels, summary, results.metrics)
    return SweepReport(results, summary, differences, reference, made, pictures, alt)


def print_sweep(reports: Sequence[SweepReport], left_out: Sequence[str]) -> None:
    """Print the figures over all tasks, the changes, and what was left out."""
    for report in reports:
        shown = console_tables(report.results, report.summary)
        if report.differences:
            shown.append(differences_table(report.results, report.differences, report.reference))
        said = [*report.results.notes, *([KATA] if report.results.benchmark == "kata" else [])]
        print("\n\n".join([*map(layout.to_text, shown), *said]), end="\n\n")
    for sentence in left_out:
        print(f"Left out: {sentence}")


def _page(reports: Sequence[SweepReport], left_out: Sequence[str], output: Path) -> str:
    lead, sections = [], []
    for report in reports:
        results = report.results
        seeds = max(len(found) for found in results.replicates.values())
        lead.append(
            f"{len(results.replicates)} configurations on {results.about}: {len(list(results.levels.values())[-1])} tasks, "
            f"{results.samples} of each, up to {seeds} {'seed' if seeds == 1 else 'seeds'}. Changes are against "
            f"{report.reference}."
        )
        lead += [_sentence(report, label) for label in report.differences]
        lead += results.notes
        lead += [KATA] if results.benchmark == "kata" else []
        sections += _sections(report, output, several=len(reports) > 1)
    lead += [f"Left out: {sentence}" for sentence in left_out]
    return render_page(f"Sweep on {' and '.join(report.results.about for report in reports)}", lead, sections)


def _sections(report: SweepReport, output: Path, several: bool) -> Iterator[Section]:
    behind = f", {report.results.about}" if several else ""
    if report.pictures:
        pictures = [Picture(kinds["svg"], report.alt) for kinds in report.pictures.values()]
        yield Section(f"Quality against correctness{behind}", pictures)
    for name, heading in HEADINGS.items():
        for table in report.tables.values():
            if table.name.endswith(name):
                yield Section(f"{heading}{behind}", [table, *(_links(report, output) if name == "runs" else [])])


def _links(report: SweepReport, output: Path) -> Iterator[Link]:
    """Yield a link to the report of each evaluation that lies below this one."""
    seen = dict.fromkeys(one.directory for found in report.results.replicates.values() for one in found.values())
    for directory in seen:
        address = os.path.relpath(directory / REPORT, output)
        if not address.startswith("..") and (directory / REPORT).is_file():
            yield Link(f"Report of evaluation {os.path.relpath(directory, output)}", address)


def _sentence(report: SweepReport, label: str) -> str:
    """Say how mean and min score and the first pass@k differ over all tasks."""
    level = list(report.results.levels)[-1]
    found = report.differences[label][level]
    scorer = report.results.scorer
    names = [name for name in (f"{scorer}_mean", f"{scorer}_min", "pass@1") if found.get(name) is not None]
    said = (f"{tables.find_metric(name).label} {tables.change(name, found)}" for name in names)
    return f"{label} against {report.reference}: {', '.join(said)}."
