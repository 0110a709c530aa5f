"""The tables of a sweep: one row a configuration, as CPT's Tables II, III, VII and VIII have it; changes; seeds; runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev

from cptlab.metrics.definitions import SCORES, Family, Metric, family_of, find_metric
from cptlab.metrics.summary import Summary
from cptlab.reporting import tables
from cptlab.reporting.layout import Table
from cptlab.reporting.sweep.results import Seed, SweepResults

INTERVALS = "In brackets: 95% hierarchical bootstrap interval over seeds and tasks; with one seed, over tasks alone."


def metrics_of(results: SweepResults, family: Family | None = None) -> list[Metric]:
    """Return the metrics of quality and correctness that every configuration has, or those of one family."""
    found = [find_metric(name) for name in results.metrics]
    return [metric for metric in found if metric.family in (SCORES if family is None else (family,))]


def family_table(results: SweepResults, summary: Mapping[str, Summary], family: Family, name: str = "") -> Table:
    """One row a configuration; the metrics of a family for each difficulty, means over seeds and tasks."""
    metrics = metrics_of(results, family)
    groups = tuple((f"{level} (n = {len(tasks)})", len(metrics)) for level, tasks in results.levels.items())
    rows, records = [], []
    for label, levels in summary.items():
        cells = [label, str(len(results.replicates[label]))]
        for level in results.levels:
            cells += [tables.with_interval(metric.name, levels[level]) for metric in metrics]
            records += [_record(label, level, metric.name, levels[level]) for metric in metrics]
        rows.append(tuple(cells))
    columns = ("Configuration", "Seeds", *(metric.heading for _ in results.levels for metric in metrics))
    title = f"{family_of(family, results.scorer).title}, {results.samples} per task, {results.about}"
    note = f"n: tasks. Means over seeds and tasks. {INTERVALS}"
    return Table(name + family.name, title, columns, tuple(rows), tuple(records), 2, groups, note)


def differences_table(
    results: SweepResults, differences: Mapping[str, Summary], reference: str, name: str = ""
) -> Table:
    """Each other configuration minus the reference, paired by seed and task: one row a configuration and metric."""
    rows: list[tuple[str, ...]] = []
    records = []
    for family in SCORES:
        family = family_of(family, results.scorer)
        rows.append((f"{family.heading} ({family.unit}{', percentage points' if family.percent else ''})",))
        for label, levels in differences.items():
            for metric in metrics_of(results, family):
                shifts = (tables.change(metric.name, levels[level]) for level in results.levels)
                rows.append((label, metric.heading, str(levels[next(iter(levels))]["seeds"]), *shifts))
                records += [_record(label, level, metric.name, levels[level]) for level in results.levels]
    left = [label for label in results.replicates if label != reference and label not in differences]
    note = f"n: tasks. Pairs: of seeds. {INTERVALS}"
    if left:
        note += f" Without a seed in common with {reference}: {', '.join(left)}."
    columns = ("Configuration", "Metric", "Pairs", *(f"{level} (n = {len(t)})" for level, t in results.levels.items()))
    title = f"Change against {reference}, paired by seed and task, {results.about}"
    return Table(name + "differences", title, columns, tuple(rows), tuple(records), 3, note=note)


def seeds_table(results: SweepResults, summary: Mapping[str, Summary], name: str = "") -> Table:
    """The figures of every seed over all tasks, and below them the standard deviation over the seeds."""
    metrics, level = metrics_of(results), list(results.levels)[-1]
    samplings = {seed[1] for found in results.replicates.values() for seed in found}
    rows: list[tuple[str, ...]] = []
    records = []
    for label, found in results.replicates.items():
        of_seeds = {metric.name: summary[label][level][f"{metric.name}_seeds"] for metric in metrics}
        for i, one in enumerate(found.values()):
            values = {metric: None if seeds is None else seeds[i] for metric, seeds in of_seeds.items()}
            seed = _seed(one.seed, len(samplings) > 1)
            rows.append((label, seed, *(tables.value(metric, values) for metric in values)))
            records.append(
                {
                    "configuration": label,
                    "training_seed": one.seed[0],
                    "sampling_seed": one.seed[1],
                    "difficulty": level,
                }
                | values
            )
        if len(found) > 1:
            spread = {metric: None if seeds is None else stdev(seeds) for metric, seeds in of_seeds.items()}
            rows.append((label, "standard deviation", *(tables.value(metric, spread) for metric in spread)))
    columns = ("Configuration", "Seed", *(metric.heading for metric in metrics))
    title = f"Every seed, {len(results.levels[level])} tasks, {results.about}"
    several = (
        ", then of the sampling (training/sampling)" if len(samplings) > 1 else f"; of the sampling: {samplings.pop()}"
    )
    note = f"Seed: of the training run{several}. –: without training."
    return Table(name + "seeds", title, columns, tuple(rows), tuple(records), 2, note=note)


def runs_table(results: SweepResults, beside: Path, name: str = "") -> Table:
    """Where each row comes from: the evaluation and the training run."""
    rows = [
        (label, _seed(one.seed, True), one.system, _shown(one.directory, beside), _shown(one.training_run, beside))
        for label, found in results.replicates.items()
        for one in found.values()
    ]
    columns = ("Configuration", "Seed", "System", "Evaluation", "Training run")
    names = ("configuration", "seed", "system", "evaluation", "training_run")
    records: tuple[dict[str, str], ...] = tuple(dict(zip(map(str, names), row, strict=True)) for row in rows)
    return Table(name + "runs", f"Runs behind each row, {results.about}", columns, tuple(rows), records, 5)


def all_tables(
    results: SweepResults, summary: Mapping[str, Summary], differences: Mapping[str, Summary], reference: str,
    beside: Path, name: str = "",
) -> list[Table]:  # fmt: skip
    """Return every table of one benchmark. `name` begins the names of their files."""
    found = [family_table(results, summary, family, name) for family in SCORES if metrics_of(results, family)]
    if differences:
        found.append(differences_table(results, differences, reference, name))
    return [*found, seeds_table(results, summary, name), runs_table(results, beside, name)]


def console_tables(results: SweepResults, summary: Mapping[str, Summary]) -> list[Table]:
    """Return the tables of all tasks together, narrow enough for a console, one for each family."""
    level = list(results.levels)[-1]
    shown = []
    for family in SCORES:
        metrics: Sequence[Metric] = metrics_of(results, family)
        rows = tuple(
            (
                label,
                str(len(results.replicates[label])),
                *(tables.with_interval(m.name, levels[level]) for m in metrics),
            )
            for label, levels in summary.items()
        )
        columns = ("Configuration", "Seeds", *(metric.heading for metric in metrics))
        title = f"{family_of(family, results.scorer).title}, {results.about}, {len(results.levels[level])} tasks, {results.samples} per task"
        shown.append(Table(family.name, title, columns, rows, (), 2, note=INTERVALS))
    return shown


def _record(label: str, level: str, metric: str, found: Mapping) -> dict:
    low, high = found[f"{metric}_ci"] or (None, None)
    of_seeds = found[f"{metric}_seeds"] or ()
    return {
        "configuration": label, "difficulty": level, "tasks": found["tasks"], "seeds": found["seeds"], "metric": metric,
        "value": found[metric], "lo": low, "hi": high, "sd_of_seeds": stdev(of_seeds) if len(of_seeds) > 1 else None,
    }  # fmt: skip


def _seed(seed: Seed, with_sampling: bool) -> str:
    """'1', or '1/0' with the seed of the sampling behind it."""
    parts = seed if with_sampling else seed[:1]
    return "/".join("–" if one is None else str(one) for one in parts)


def _shown(path: str | Path | None, beside: Path) -> str:
    """Return a path as seen from the directory of the report; its last parts where it lies elsewhere."""
    if path is None:
        return "–"
    seen = os.path.relpath(path, beside)
    return seen if not seen.startswith("..") else "/".join(Path(path).parts[-3:])
