"""Loggers: CSV and W&B as cptlab opens them. The only module that imports wandb.

W&B runs offline unless the user is logged in, and never asks. A run that goes on goes on in the same file and the same
W&B run. Each logger here has what Lightning asks of one, without Lightning, which would import torch.
"""

from __future__ import annotations

import netrc
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlparse

import yaml

from cptlab.errors import UserError
from cptlab.settings.setting import Setting
from cptlab.storage.atomic import write_json, write_text
from cptlab.storage.csv_rows import append_row, read_rows
from cptlab.tracking.outcome import RUN_IDS, Outcome, known_id
from cptlab.tracking.wandb_outcome import define_metric, log_outcome

FINISH_SECONDS = 120.0  # for what W&B has not sent yet; `wandb sync` sends the rest


class Logger:
    """What Lightning asks of a logger, and does nothing."""

    name = version = ""

    def __init__(self, save_dir: str) -> None:
        self.save_dir = save_dir

    def log_hyperparams(self, params: Mapping[str, Any], *_: Any) -> None:
        """Keep the settings of the run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of an optimiser step; without `step`, the results of the run."""

    def log_outcome(self, outcome: Outcome) -> None:
        """Log what the run came to."""
        self.log_metrics(outcome.metrics)

    def log_graph(self, *_: Any) -> None: ...
    def after_save_checkpoint(self, *_: Any) -> None: ...
    def save(self) -> None: ...
    def finalize(self, status: str) -> None: ...

    def close(self, failed: bool) -> None:
        """End the record of the run."""


class CsvLogger(Logger):
    """Writes `<save_dir>/csv/metrics.csv`, a row each time, on the disk at once, and the settings to `hparams.yaml` beside it.

    A run that goes on repeats the steps after its checkpoint, with the same values: their rows are there already.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self.path = Path(save_dir) / "csv" / "metrics.csv"
        self._known = {(row.get("step"), frozenset(row)) for row in read_rows(self.path)}

    def log_hyperparams(self, params: Mapping[str, Any], *_: Any) -> None:
        write_text(
            self.path.with_name("hparams.yaml"), yaml.safe_dump(dict(params), sort_keys=False, allow_unicode=True)
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = ({} if step is None else {"step": step}) | dict(metrics)
        key = None if step is None else str(step), frozenset(row)
        if key not in self._known:
            self._known.add(key)
            append_row(self.path, row)


class WandbLogger(Logger):
    """A W&B run. The optimiser step is its x axis."""

    def __init__(self, save_dir: str, **options: Any) -> None:
        super().__init__(save_dir)
        self.run = start_wandb(save_dir, **options)
        self.run.define_metric("trainer/global_step")
        self.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self._defined: set[str] = set()

    def log_hyperparams(self, params: Mapping[str, Any], *_: Any) -> None:
        self.run.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None:
            self.run.log(dict(metrics))
            return
        for name in metrics:
            if name not in self._defined:
                self._defined.add(name)
                define_metric(self.run, name)
        # W&B ignores a step that it has: one that a run repeats after its checkpoint
        self.run.log({**metrics, "trainer/global_step": step}, step=step)

    def log_outcome(self, outcome: Outcome) -> None:
        log_outcome(self.run, outcome)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def csv_logger(save_dir: str, record: Mapping[str, Any]) -> CsvLogger:
    """Open the CSV logger of a run directory."""
    return CsvLogger(save_dir)


def wandb_logger(
    save_dir: str,
    record: Mapping[str, Any],
    project: Annotated[str, Setting("W&B project.")] = "cptlab",
    group: Annotated[str | None, Setting("W&B group of the run; null: its sweep, or experiment_name.")] = None,
    name: Annotated[str | None, Setting("W&B name of the run; null: what the command line chose.")] = None,
) -> WandbLogger:
    """Open the W&B logger of a run directory, offline if nobody is logged in. `record` says what the run is."""
    return WandbLogger(
        save_dir,
        project=project,
        group=group or record.get("group"),
        name=name or record.get("name"),
        job_type=record.get("job_type"),
        tags=record.get("tags", ()),
    )


def start_wandb(save_dir: str, **options: Any) -> Any:
    """Start the W&B run of a run directory, or go on with it; offline if nobody is logged in or W&B does not answer."""
    import wandb
    from wandb.errors import Error

    os.environ.setdefault("WANDB_SILENT", "true")
    options |= {"dir": save_dir, "id": _run_id(Path(save_dir)), "tags": list(options["tags"])}
    quiet = wandb.Settings(console="off", silent=True, init_timeout=30, finish_timeout=FINISH_SECONDS)
    mode: Any = os.environ.get("WANDB_MODE") or ("offline" if is_offline() else "online")
    resume = None if mode == "offline" else "allow"  # offline, the id alone makes the parts one run
    try:
        return wandb.init(mode=mode, resume=resume, settings=quiet, **options)
    except (Error, TimeoutError) as error:  # no network, or a key that the server refuses
        if mode == "offline":
            raise
        reason = " ".join(str(error).split())
        print(
            f"W&B did not take the run, which is kept offline for `wandb sync` ({reason}).", file=sys.stderr, flush=True
        )
        wandb.teardown()  # or it would hold the id
        return wandb.init(mode="offline", settings=quiet, **options)


def check_wandb(tags: Sequence[Any], project: Any = None, group: Any = None, name: Any = None) -> None:
    """Raise UserError for what W&B would refuse of a run's settings, or of the variables WANDB_… of the environment."""
    try:
        import wandb
        from wandb.errors import UsageError
    except (ImportError, OSError):
        return  # the run will go on without it

    given = {"run_tags": tuple(tags), "project": project, "run_group": group, "run_name": name}
    try:
        wandb.Settings(**given)
        wandb.Settings().update_from_env_vars(dict(os.environ))
    except (ValueError, UsageError) as error:  # pydantic's errors are ValueErrors
        raise UserError(
            f"W&B refuses its settings: {_reason(error)}. Correct tags, logger.wandb or the variables WANDB_… of the "
            "environment, or use logger=csv."
        ) from None


def _reason(error: Exception) -> str:
    """Return the first complaint of pydantic in one line, or the text of another error."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error).rstrip(".")
    first = error.errors()[0]
    name = str(first["loc"][0]).removeprefix("run_") if first["loc"] else "a value"
    return f"{name}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r}"


def is_offline() -> bool:
    """Return whether there is no key for the W&B server: nobody is logged in."""
    if os.environ.get("WANDB_API_KEY"):
        return False
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is None
    except (OSError, netrc.NetrcParseError):
        return True


def _run_id(directory: Path) -> str:
    """Return the id of the W&B run of a run directory, which an earlier process may have begun."""
    known = known_id(directory, "wandb")
    if known is None:
        known = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        write_json(directory / RUN_IDS["wandb"], {"id": known})
    return known
