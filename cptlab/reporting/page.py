"""The report of an evaluation as one HTML page: pictures are inlined, and nothing is fetched or run."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cptlab.metrics.definitions import FAMILIES
from cptlab.reporting import side_by_side, tables
from cptlab.reporting.evaluation import Evaluation, Metrics
from cptlab.reporting.style import CSS


def page_of(evaluation: Evaluation, metrics: Metrics, shown: Mapping[str, str]) -> str:
    """Return the page. `shown` has the HTML of each table by its name, and of each figure as '<name>.svg'."""
    benchmarks = sorted({task.benchmark for task in evaluation.tasks})
    title = f"{_listed(list(evaluation.systems))} on {', '.join(benchmarks)}"
    lead = [
        f"{len(evaluation.tasks)} tasks, {evaluation.samples_per_task} of each per system.{tables.left_out(evaluation)}"
    ]
    lead += [_summary(evaluation, metrics, system) for system in evaluation.others]
    if evaluation.others:
        lead.append("In brackets: 95% intervals of the change, paired by task.")
    if "kata" in benchmarks:
        lead.append("kata is a synthetic benchmark: these figures say nothing about any other model or benchmark.")
    *families, messages = FAMILIES
    sections = {family.heading: shown.get(f"{family.name}.svg", "") + shown[family.name] for family in families}
    for heading, name in (
        ("Changes", "differences"),
        ("Cost", "cost"),
        ("Verdicts", "verdicts"),
        ("Answers", "answers"),
    ):
        if name in shown:
            sections[heading] = shown[name]
    sections["Issues"] = shown[messages.name] + shown["issues.svg"] + shown["issues"]
    if training := shown.get("training.svg", "") + shown.get("pairs", ""):
        sections["Training"] = training
    for system in evaluation.others:
        sections[f"Side by side: {evaluation.baseline} and {system}"] = _side_by_side(evaluation, system)
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


def _listed(names: Sequence[str]) -> str:
    """'base', 'base and tuned', 'base, tuned and lora'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _summary(evaluation: Evaluation, metrics: Metrics, system: str) -> str:
    """Say in a sentence how the first metric of each family changes over all tasks."""
    level = list(evaluation.levels)[-1]
    before, after = (metrics.results[name][level] for name in (evaluation.baseline, system))
    parts = []
    for metric in (tables.metrics_of(metrics.results, family)[0] for family in FAMILIES):
        change = tables.change(metric.name, metrics.differences[system][level])
        values = f"{tables.value(metric.name, before)} → {tables.value(metric.name, after)}"
        parts.append(f"{tables.shown_label(metric)} {values} ({change})")
    return f"{evaluation.baseline} → {system}: {', '.join(parts)}."


def _side_by_side(evaluation: Evaluation, system: str) -> str:
    """One pair of programs a chosen task; folded where more than two systems make the page long."""
    chosen = side_by_side.choose_tasks(evaluation, system)
    found = f"<p class='note'>{html.escape(side_by_side.RULE)}</p>" + "\n".join(map(side_by_side.to_html, chosen))
    if len(evaluation.others) == 1:
        return found
    return f"<details><summary>{len(chosen)} tasks</summary>{found}</details>"


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


def image(svg: bytes, name: str) -> str:
    """Return an inlined picture."""
    data = base64.b64encode(svg).decode()
    return f"<figure><img alt='{html.escape(name)} figure' src='data:image/svg+xml;base64,{data}'></figure>"
