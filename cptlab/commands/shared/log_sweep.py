"""A sweep's own run in W&B: the tables and figures of its report, linked to the runs of its jobs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cptlab.reporting.sweep.report import REPORT, SweepReport
from cptlab.storage.run_directory import CONFIG_FILE, RUN_FILE, read_record
from cptlab.tracking.loggers import wandb_logger
from cptlab.tracking.mirrors import Mirror, closed_at_the_end
from cptlab.tracking.outcome import Outcome, Table, known_id

COLUMNS = ("configuration", "seed", "name", "id", "system", "evaluation", "training_run")


def log_sweep(output: Path, reports: Sequence[SweepReport], logger: str | None) -> bool:
    """Log what was written to `output`, and return whether it was. `logger` None: if the jobs were logged to W&B.

    The run is in the group of the jobs, and its table `jobs` has their names and ids. Logged again, it is the same run.
    """
    jobs = [_job(label, one) for report in reports for label, found in report.results.replicates.items()
            for one in found.values()]  # fmt: skip
    if logger == "none" or (logger is None and not any(job["id"] for job in jobs)):
        return False
    first = reports[0].results
    directory = next(one.directory for found in first.replicates.values() for one in found.values())
    run = read_record(directory / RUN_FILE)
    group = run.get("group") or output.resolve().name
    record = {"name": f"report-{group}", "group": group, "job_type": "report", "tags": ["report"]}
    project = OmegaConf.select(OmegaConf.load(directory / CONFIG_FILE), "logger.wandb.project") or "cptlab"
    mirror = Mirror("wandb", str(output), functools.partial(wandb_logger, str(output), record, project=project))
    with closed_at_the_end([mirror]):
        references = {report.results.about: report.reference for report in reports}
        mirror.log_hyperparams({"record": record, "reference": references, "jobs": jobs})
        mirror.log_outcome(_outcome(output, reports, jobs))
        mirror.save()
    return True


def _outcome(output: Path, reports: Sequence[SweepReport], jobs: Sequence[Mapping[str, Any]]) -> Outcome:
    metrics: dict[str, float] = {}
    tables = {"jobs": Table(COLUMNS, [[job[name] for name in COLUMNS] for job in jobs])}
    figures = {}
    for report in reports:
        place = f"{report.results.about}/" if len(reports) > 1 else ""
        for label, levels in report.summary.items():
            for level, found in levels.items():
                for metric in report.results.metrics:
                    if found[metric] is not None:
                        name, (low, high) = f"{place}{label}/{level}/{metric}", found[f"{metric}_ci"]
                        metrics |= {name: found[metric], f"{name}_low": low, f"{name}_high": high}
        for table in report.tables.values():
            columns = list(table.records[0]) if table.records else []
            tables[table.name] = Table(columns, [[row[name] for name in columns] for row in table.records])
        figures |= {name: output / "figures" / f"{name}.png" for name in report.pictures}
    return Outcome(metrics, tables=tables, figures=figures, report=output / REPORT)


def _job(label: str, one: Any) -> dict[str, Any]:
    record = read_record(one.directory / RUN_FILE)
    return {
        "configuration": label,
        "seed": one.seed[0],
        "name": record.get("name"),
        "id": known_id(one.directory, "wandb"),
        "system": one.system,
        "evaluation": one.directory.name,
        "training_run": None if one.training_run is None else "/".join(Path(one.training_run).parts[-2:]),
    }
