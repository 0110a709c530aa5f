"""Remakes every table, figure and the HTML report of an evaluation run from its stored files."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cptlab.metrics.summary import compare, summarise
from cptlab.reporting import layout, side_by_side, tables
from cptlab.reporting.curves import Stage, has_curves, read_curves
from cptlab.reporting.evaluation import Evaluation, read_evaluation
from cptlab.reporting.layout import Table
from cptlab.storage.atomic import write_bytes

REPORT = "report.html"
CONSOLE_ISSUES = 12

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1180px; margin: 2em auto;
       padding: 0 1.2em; }
h1 { font-size: 1.6em; margin-bottom: .2em; } h2 { margin-top: 2.2em; border-bottom: 1px solid #ddd; }
h4, h5 { margin: 1em 0 .4em; } .lead { color: #444; } nav a { margin-right: 1.2em; }
figure { margin: 1.2em 0; } figure img { max-width: 100%; height: auto; } figcaption { font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: .25em .7em; border-bottom: 1px solid #e6e6e6; white-space: nowrap; }
th { background: #f6f6f6; } th.label, td.label, th.section { text-align: left; }
th.number, td.number { text-align: right; }
th.group { border-left: 1px solid #ddd; } th.section { padding-top: .8em; }
.interval, .note { color: #666; font-size: .86em; font-weight: normal; }
td .interval { display: block; }
article { border-top: 1px solid #ddd; margin-top: 1.2em; } .pair { display: grid; gap: 1em;
       grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); }
.pair section { min-width: 0; } .pair ul { margin: .4em 0; padding-left: 1.2em; font-size: .88em; }
pre { background: #f8f8f8; padding: .7em; overflow-x: auto; font: 12.5px/1.45 ui-monospace, monospace; margin: .3em 0; }
.program .line { display: block; min-height: 1.45em; } .program .marked { background: #fde9c8; }
.verdict { font-weight: normal; }
"""


@dataclass(frozen=True)
class Metrics:
    """`results[system][level][metric]` and, for each system but the baseline, `differences[system][level][metric]`."""

    results: Mapping[str, Mapping[str, Mapping[str, Any]]]
    differences: Mapping[str, Mapping[str, Mapping[str, Any]]]


def compute_metrics(evaluation: Evaluation) -> Metrics:
    """Scores, pass rates and paired differences with their intervals, computed from the stored records."""
    judged = {}
    for system, answers in evaluation.systems.items():
        qualities = {task: [sample.quality for sample in samples] for task, samples in answers.items()}
        verdicts = {task: [sample.verdict for sample in samples] for task, samples in answers.items()}
        judged[system] = (qualities, verdicts)
    results = {system: summarise(evaluation.tasks, *found, ks=evaluation.ks) for system, found in judged.items()}
    base = judged[evaluation.baseline]
    differences = {
        system: compare(evaluation.tasks, base, judged[system], ks=evaluation.ks) for system in evaluation.others
    }
    return Metrics(results, differences)


def make_report(
    run_directory: str | os.PathLike,
    *,
    train_directory: str | os.PathLike | None = None,
    programs_per_task: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Writes tables/*.md and *.csv, figures/*.svg and *.png, and report.html into `run_directory`; gives its path.

    Everything but the provenance is computed anew from the stored records, and the same records give the same bytes.
    `train_directory` adds the training curves (None: those of the run that metrics.json names as `training_run`, where
    that directory still has them); `programs_per_task` limits the issue counts to that many parsing
    programs of each task (the paper takes ten). `progress` is called with 1 after each table, figure and the page.
    """
    evaluation = read_evaluation(run_directory)
    stages = _stages(evaluation) if train_directory is None else read_curves(train_directory)
    metrics = compute_metrics(evaluation)
    done = progress or (lambda count: None)
    shown = {}
    for table in all_tables(evaluation, metrics, programs_per_task):
        write_bytes(evaluation.directory / "tables" / f"{table.name}.md", layout.to_markdown(table).encode())
        write_bytes(evaluation.directory / "tables" / f"{table.name}.csv", layout.to_csv(table).encode())
        shown[table.name] = layout.to_html(table)
        done(1)
    for name, picture in _pictures(evaluation, metrics, programs_per_task, stages):
        for kind, content in picture.items():
            write_bytes(evaluation.directory / "figures" / f"{name}.{kind}", content)
        shown[f"{name}.svg"] = _image(picture["svg"], name)
        done(1)
    page = evaluation.directory / REPORT
    write_bytes(page, _page(evaluation, metrics, shown).encode())
    done(1)
    return page


def all_tables(evaluation: Evaluation, metrics: Metrics, programs_per_task: int | None = None) -> list[Table]:
    """quality, correctness, differences (where there is something to compare), issues and verdicts."""
    out = [tables.quality_table(evaluation, metrics.results), tables.correctness_table(evaluation, metrics.results)]
    if evaluation.others:
        out.append(tables.differences_table(evaluation, metrics.results, metrics.differences))
    return [*out, tables.issues_table(evaluation, programs_per_task), tables.verdicts_table(evaluation)]


def print_tables(
    evaluation: Evaluation | str | os.PathLike, file: TextIO | None = None, *, programs_per_task: int | None = None
) -> None:
    """Prints quality, correctness, the commonest issues and the verdicts as text to `file` (None: standard output)."""
    evaluation = evaluation if isinstance(evaluation, Evaluation) else read_evaluation(evaluation)
    metrics = compute_metrics(evaluation)
    results, differences = metrics.results, metrics.differences
    quality, correctness = tables.quality_table(evaluation, results), tables.correctness_table(evaluation, results)
    shown = [
        tables.overview_table(evaluation, results, differences, tables.QUALITY, quality.title),
        tables.overview_table(evaluation, results, differences, tables.pass_at(results), correctness.title),
        tables.top_issues(evaluation, tables.issues_table(evaluation, programs_per_task), CONSOLE_ISSUES),
        tables.verdicts_table(evaluation),
    ]
    print("\n\n".join(layout.to_text(table) for table in shown), file=file)


def _stages(evaluation: Evaluation) -> Sequence[Stage]:
    named = evaluation.provenance.get("training_run")
    return read_curves(named) if named and has_curves(named) else ()


def _pictures(
    evaluation: Evaluation, metrics: Metrics, programs_per_task: int | None, stages: Sequence[Stage]
) -> Iterator:
    from cptlab.reporting import figures  # brings in matplotlib, which reading and printing a run do without

    yield "quality", figures.render(figures.quality_figure(evaluation, metrics.results))
    yield "correctness", figures.render(figures.correctness_figure(evaluation, metrics.results))
    yield "issues", figures.render(figures.issues_figure(evaluation, programs_per_task))
    if stages:
        yield "training", figures.render(figures.training_figure(stages))


def _page(evaluation: Evaluation, metrics: Metrics, shown: Mapping[str, str]) -> str:
    """The report, complete in one file: pictures are inlined, and nothing is fetched or evaluation."""
    benchmarks = sorted({task.benchmark for task in evaluation.tasks})
    title = f"{' and '.join(evaluation.systems)} on {', '.join(benchmarks)}"
    lead = [f"{len(evaluation.tasks)} tasks, {evaluation.samples_per_task} of each per system."]
    lead += [_summary(evaluation, metrics, system) for system in evaluation.others]
    if "kata" in benchmarks:
        lead.append("kata is a synthetic benchmark: these figures say nothing about any other model or benchmark.")
    sections = {
        "Code quality": shown["quality.svg"] + shown["quality"] + shown.get("differences", ""),
        "Correctness": shown["correctness.svg"] + shown["correctness"] + shown["verdicts"],
        "Issues": shown["issues.svg"] + shown["issues"],
    }
    if "training.svg" in shown:
        sections["Training"] = shown["training.svg"]
    for system in evaluation.others:
        found = "\n".join(side_by_side.to_html(example) for example in side_by_side.choose_examples(evaluation, system))
        sections[f"Examples: {evaluation.baseline} and {system}"] = (
            f"<p class='note'>{html.escape(side_by_side.RULE)}</p>{found}"
        )
    sections["Provenance"] = _provenance(evaluation)
    links = "".join(f"<a href='#s{i}'>{html.escape(head)}</a>" for i, head in enumerate(sections))
    body = "\n".join(
        f"<section id='s{i}'><h2>{html.escape(head)}</h2>\n{content}</section>"
        for i, (head, content) in enumerate(sections.items())
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head>\n<body><h1>{html.escape(title)}</h1>"
        f"<p class='lead'>{html.escape(' '.join(lead))}</p><nav>{links}</nav>\n{body}\n</body></html>\n"
    )


def _summary(evaluation: Evaluation, metrics: Metrics, system: str) -> str:
    """One sentence on the mean score and the first pass@k over all tasks."""
    level = list(evaluation.levels)[-1]
    before, after = (metrics.results[name][level] for name in (evaluation.baseline, system))
    first = next(iter(tables.pass_at(metrics.results)))
    parts = [
        f"{name} {tables.value(metric, before)} → {tables.value(metric, after)} "
        f"({tables.change(metric, metrics.differences[system][level])})"
        for metric, name in (("pylint_mean", "mean pylint score"), (first, f"{first} (%)"))
    ]
    return f"{evaluation.baseline} → {system}: {', '.join(parts)}; in brackets 95% intervals of the change, paired by task."


def _provenance(evaluation: Evaluation) -> str:
    rows = "".join(
        f"<tr><td class='label'>{html.escape(name)}</td><td class='label'>{html.escape(value)}</td></tr>"
        for name, value in _flat(evaluation.provenance)
    )
    return (
        f"<div class='wide'><table>{rows}</table></div>\n"
        f"<details><summary>config.yaml</summary><pre>{html.escape(evaluation.config)}</pre></details>"
    )


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _image(svg: bytes, name: str) -> str:
    data = base64.b64encode(svg).decode()
    return f"<figure><img alt='{html.escape(name)} figure' src='data:image/svg+xml;base64,{data}'></figure>"
