"""The end of an evaluation: metrics.json, tables, figures, the report page, and the loggers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.shared.common import METRICS_FILE, build_loggers, optimized
from cptlab.commands.shared.outcomes import evaluation_outcome
from cptlab.metrics.programs import count_answers
from cptlab.metrics.summary import bounds, compare, flat, summarise
from cptlab.progress import waiting
from cptlab.storage.atomic import write_json
from cptlab.storage.run_directory import RunDirectory
from cptlab.tracking.mirrors import closed_at_the_end


def report_evaluation(
    config: DictConfig,
    run: RunDirectory,
    tasks: list,
    programs: Mapping[str, Any],
    ks: list[int],
    cost: dict[str, Any],
    facts: dict[str, Any],
) -> tuple[dict[str, float], Path]:
    """Write metrics.json, tables, figures and report of a run, finish it, mirror and print it; return its metrics by name,
    and the report.

    `programs` are those of each system, by task. Changes are counted against the first of them.
    """
    from cptlab.reporting import make_report, print_tables

    first, *others = programs
    results = {name: summarise(tasks, found, ks=ks) for name, found in programs.items()}
    differences = {name: compare(tasks, programs[first], programs[name], ks=ks) for name in others}
    answers = {name: count_answers(one for task in tasks for one in found[task.id]) for name, found in programs.items()}
    content = {
        "systems": list(programs),
        "results": results,
        "differences": differences,
        "answers": answers,
        "cost": cost,
    }
    write_json(run.directory / METRICS_FILE, content | {"run": run.record} | facts)
    with waiting("Writing tables, figures and report"):
        report = make_report(run.directory)
    run.finish()
    metrics, loggers = flat(results), build_loggers(config, run, training=facts.get("training", {}))
    with closed_at_the_end(loggers):
        if loggers:
            outcome = evaluation_outcome(run, metrics | bounds(results), facts)
            for logger in loggers:
                logger.log_outcome(outcome)
                logger.save()
    print_tables(run.directory)
    return metrics, report


def stored_metric(config: DictConfig, run: Path) -> float | None:
    """Return the metric that a sweep optimises, of a run that is finished."""
    return optimized(config, flat(json.loads((run / METRICS_FILE).read_text(encoding="utf-8"))["results"]))


def pair_statistics_of(training_run: Path) -> dict[str, Any]:
    """Return what a training run says of its pairs; nothing where it did not build them, or is not finished."""
    file = training_run / METRICS_FILE
    return json.loads(file.read_text(encoding="utf-8")).get("pair_statistics", {}) if file.is_file() else {}
