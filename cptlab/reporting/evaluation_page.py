"""The report of an evaluation as one HTML page: what stands in which section, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cptlab.metrics.definitions import FAMILIES
from cptlab.reporting import tables
from cptlab.reporting.evaluation import Evaluation, Metrics
from cptlab.reporting.layout import Table
from cptlab.reporting.page import Folded, Picture, Programs, Section, render_page

HEADINGS = {  # of the sections after those of the metrics, with their tables and figures
    "Changes": ("differences",),
    "Cost": ("cost",),
    "Verdicts": ("verdicts",),
    "Answers": ("answers",),
    "Issues": (FAMILIES[-1].name, "issues"),
    "Training": ("training", "pairs"),
}


def page_of(
    evaluation: Evaluation, metrics: Metrics, shown: Mapping[str, Table], pictures: Mapping[str, Picture]
) -> str:
    """Return the page. `shown` has the tables and `pictures` the figures by name; a section needs either."""
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
    headings = {family.heading: (family.name,) for family in FAMILIES[:-1]} | HEADINGS
    sections = []
    for heading, names in headings.items():
        content = [found[name] for name in names for found in (pictures, shown) if name in found]
        sections += [Section(heading, content)] if content else []
    sections.append(Section("Programs", [Programs(evaluation)]))
    config = [Folded("config.yaml", evaluation.config)] if evaluation.config else []
    sections.append(Section("Provenance", [*provenance(evaluation.provenance), *config]))
    return render_page(title, lead, sections)


def provenance(facts: Mapping[str, Any]) -> list[Table]:
    """Return what metrics.json says of where the figures come from, one row a fact."""
    rows = tuple(_flat(facts))
    return [Table("provenance", "Where the figures come from", ("Name", "Value"), rows, (), 2)] if rows else []


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


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
