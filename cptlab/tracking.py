"""Loggers and provenance. The only module that imports wandb.

The local result files are the truth; W&B mirrors them. It runs offline unless the user is logged in, and never asks.
"""

from __future__ import annotations

import csv
import importlib.metadata
import netrc
import os
import platform
import resource
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

PACKAGES = ("cptlab", "torch", "lightning", "transformers", "hydra-core", "pylint", "datasets", "wandb", "numpy")


def csv_logger(save_dir: str) -> Any:
    """Lightning's CSV logger: `<save_dir>/csv/metrics.csv`, csv1 and so on for a run that was resumed."""
    from lightning.pytorch.loggers import CSVLogger

    earlier = len(list(Path(save_dir).glob("csv*")))  # Lightning would delete what a killed run logged
    return CSVLogger(save_dir=save_dir, name="", version=f"csv{earlier or ''}")


def wandb_logger(
    save_dir: str, project: str, group: str | None, job_type: str, tags: list[str], name: str | None = None
) -> Any:
    """Lightning's W&B logger, offline where nobody is logged in."""
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(experiment=start_wandb(save_dir, project, group, job_type, tags, name), save_dir=save_dir)


def start_wandb(
    save_dir: str, project: str, group: str | None, job_type: str, tags: list[str], name: str | None = None
) -> Any:
    """A W&B run, offline where nobody is logged in."""
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_DIR", save_dir)
    options = {
        "project": project,
        "group": group,
        "job_type": job_type,
        "tags": list(tags),
        "name": name,
        "dir": save_dir,
        "settings": wandb.Settings(console="off", silent=True, init_timeout=30),
    }
    mode = os.environ.get("WANDB_MODE") or ("offline" if is_offline() else "online")
    try:
        return wandb.init(mode=mode, **options)
    except (wandb.errors.Error, TimeoutError, OSError):  # no network, or a key that the server refuses
        return wandb.init(mode="offline", **options)


def is_offline() -> bool:
    """Whether W&B must stay offline because nobody is logged in: there is no key for its server."""
    if os.environ.get("WANDB_API_KEY"):
        return False
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is None
    except (OSError, netrc.NetrcParseError):
        return True


@contextmanager
def finished_at_the_end(loggers: list[Any]) -> Iterator[list[Any]]:
    """Close the W&B run, whatever happens in between."""
    failed = True
    try:
        yield loggers
        failed = False
    finally:
        for logger in loggers:
            if type(logger).__name__ == "WandbLogger":
                logger.experiment.finish(exit_code=int(failed))


def log_evaluation(loggers: list[Any], metrics: dict[str, float]) -> None:
    """Mirror an evaluation: scalars to every logger, one table of them to W&B."""
    for logger in loggers:
        logger.log_metrics(metrics)
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.log({"results": _table(metrics)})
        logger.save()


def mirror_without_lightning(
    loggers: Mapping[str, Any], directory: Path, metrics: dict[str, float], tags: list[str], config: dict[str, Any]
) -> None:
    """The same for a run that loads no model: Lightning's loggers would bring in torch. `loggers`: their config."""
    if "csv" in loggers:
        (directory / "csv").mkdir(exist_ok=True)
        with open(directory / "csv" / "metrics.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(metrics))
            writer.writeheader()
            writer.writerow(metrics)
    if "wandb" in loggers:
        options = {name: loggers["wandb"].get(name) for name in ("project", "group", "name")}
        with start_wandb(str(directory), job_type="evaluate", tags=tags, **options) as run:
            run.config.update(config)
            run.log(metrics | {"results": _table(metrics)})


def _table(metrics: dict[str, float]) -> Any:
    """W&B's table of metrics named system/difficulty/metric."""
    import wandb

    rows = [[*name.split("/"), value] for name, value in metrics.items()]
    return wandb.Table(columns=["system", "difficulty", "metric", "value"], data=rows)


def provenance(root: Path, **facts: Any) -> dict[str, Any]:
    """Where a result comes from: versions, commit and dirty flag, machine, peak memory, and the caller's facts."""
    return {
        "versions": {"python": platform.python_version()} | {name: version_of(name) for name in PACKAGES},
        "git": {"commit": _git(root, "rev-parse", "HEAD"), "dirty": bool(_git(root, "status", "--porcelain"))},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **facts,
    }


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    """What git says of `root`; None where it is no checkout or git is missing."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
