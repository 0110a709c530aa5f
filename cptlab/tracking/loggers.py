"""Loggers: Lightning's CSV and W&B loggers as cptlab opens them. The only module that imports wandb.

The local result files are the truth; W&B mirrors them. It runs offline unless the user is logged in, and never asks.
"""

from __future__ import annotations

import csv
import io
import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlparse

from cptlab.settings.setting import Setting
from cptlab.storage.atomic import write_text


def csv_logger(save_dir: str) -> Any:
    """Open Lightning's CSV logger on `<save_dir>/csv/metrics.csv`; a resumed run writes to csv1, csv2 and so on."""
    from lightning.pytorch.loggers import CSVLogger

    earlier = len(list(Path(save_dir).glob("csv*")))  # Lightning would delete what a killed run logged
    return CSVLogger(save_dir=save_dir, name="", version=f"csv{earlier or ''}")


def wandb_logger(
    save_dir: str,
    job_type: str,
    tags: list[str],
    project: Annotated[str, Setting("W&B project.")] = "cptlab",
    group: Annotated[str | None, Setting("W&B group of the run.")] = None,
    name: Annotated[str | None, Setting("W&B name of the run; null: W&B makes one up.")] = None,
) -> Any:
    """Open Lightning's W&B logger, offline if nobody is logged in."""
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(experiment=start_wandb(save_dir, project, group, job_type, tags, name), save_dir=save_dir)


def start_wandb(
    save_dir: str, project: str, group: str | None, job_type: str, tags: list[str], name: str | None = None
) -> Any:
    """Start a W&B run, offline if nobody is logged in."""
    import wandb
    from wandb.errors import Error

    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_DIR", save_dir)
    quiet = wandb.Settings(console="off", silent=True, init_timeout=30)
    options: dict[str, Any] = {"project": project, "group": group, "job_type": job_type, "tags": list(tags)}
    options |= {"name": name, "dir": save_dir, "settings": quiet}
    mode: Any = os.environ.get("WANDB_MODE") or ("offline" if is_offline() else "online")
    try:
        return wandb.init(mode=mode, **options)
    except (Error, TimeoutError, OSError):  # no network, or a key that the server refuses
        return wandb.init(mode="offline", **options)


def is_offline() -> bool:
    """Return whether there is no key for the W&B server: nobody is logged in."""
    if os.environ.get("WANDB_API_KEY"):
        return False
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is None
    except (OSError, netrc.NetrcParseError):
        return True


@contextmanager
def finished_at_the_end(loggers: list[Any]) -> Iterator[list[Any]]:
    """Close the W&B run at the end, as failed if an exception ends it."""
    failed = True
    try:
        yield loggers
        failed = False
    finally:
        for logger in loggers:
            if type(logger).__name__ == "WandbLogger":
                logger.experiment.finish(exit_code=int(failed))


def log_evaluation(loggers: list[Any], metrics: dict[str, float]) -> None:
    """Log the metrics of an evaluation, named system/difficulty/metric, to every logger, and as one table to W&B."""
    for logger in loggers:
        logger.log_metrics(metrics)
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.log({"results": _table(metrics)})
        logger.save()


def mirror_without_lightning(
    loggers: Mapping[str, Any], directory: Path, metrics: dict[str, float], tags: list[str], config: dict[str, Any]
) -> None:
    """Log the metrics of a run that loads no model, without Lightning's loggers, which would import torch.

    `loggers` is their configuration: csv writes `csv/metrics.csv` in `directory`, wandb starts a run.
    """
    if "csv" in loggers:
        rows = io.StringIO(newline="")
        writer = csv.DictWriter(rows, list(metrics))
        writer.writeheader()
        writer.writerow(metrics)
        write_text(directory / "csv" / "metrics.csv", rows.getvalue())
    if "wandb" in loggers:
        options = {name: loggers["wandb"].get(name) for name in ("project", "group", "name")}
        with start_wandb(str(directory), job_type="evaluate", tags=tags, **options) as run:
            run.config.update(config)
            run.log(metrics | {"results": _table(metrics)})


def _table(metrics: dict[str, float]) -> Any:
    """Split the names system/difficulty/metric into the columns of a W&B table."""
    import wandb

    rows: list[Any] = [[*name.split("/"), value] for name, value in metrics.items()]
    return wandb.Table(columns=["system", "difficulty", "metric", "value"], data=rows)
