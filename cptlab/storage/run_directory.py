"""Run directories: `logs/<task>/runs/<time>`, and how the same command finds the run that was killed.

    run = open_run(fresh, logs, digest)     # a command opens one for its results
    ...                                     # writes below run.directory
    run.finish()

`run.json` in a run directory holds the digest of its settings and whether it finished. A command whose settings match
an unfinished run that no process holds goes on in that directory. The processes of one DDP job share one directory.
docs/results-format.md says what the directories hold.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.storage.atomic import write_json
from cptlab.storage.locks import LOCK_FILE, Lock, try_lock

RUN_FILE, CONFIG_FILE = "run.json", "config.yaml"
SHARED = "CPTLAB_RUN_DIR"  # how processes that Lightning starts learn the directory of the first
WAIT_SECONDS = 600
ADAPTER_KINDS = ("prefix", "lora", "full")  # each the name of a folder in a training run
# settings that change no result, so runs that differ in them alone are the same run
INCIDENTAL = (
    *("paths", "logger", "print_config", "tags", "callbacks", "task_name", "workers", "optimized_metric", "compute"),
    *("estimate", "ablation", "debug"),
)


@dataclass
class RunDirectory:
    """An open run directory. `resumed`: an earlier process began it. `lock` is None in all but the first process."""

    directory: Path
    digest: str
    resumed: bool
    lock: Lock | None

    def finish(self, **facts: Any) -> None:
        """Mark the run as finished: from now on, the same command starts a new one. `facts` go into run.json."""
        if self.lock is not None:
            write_json(self.directory / RUN_FILE, {"digest": self.digest, "finished": True, **facts})
            self.lock.release()
            os.environ.pop(SHARED, None)


def open_run(fresh: Path, logs: Path, digest: str) -> RunDirectory:
    """Open the run directory for settings with this digest: an unfinished one below `logs`, or `fresh`.

    Raises UserError if another process writes to `fresh`.
    """
    if _rank() > 0:
        return RunDirectory(_directory_of_rank_zero(logs, digest), digest, False, None)
    for file in sorted(logs.glob(f"*runs/**/{RUN_FILE}")):
        record = _read(file)
        if record.get("digest") != digest or record.get("finished"):
            continue
        lock = try_lock(file.parent)
        if lock is None:
            continue  # another process is at work on it
        if fresh != file.parent:
            discard(fresh)
        return _begin(file.parent, digest, True, lock)
    fresh.mkdir(parents=True, exist_ok=True)
    lock = try_lock(fresh)
    if lock is None:
        raise UserError(f"Another process writes to {fresh}. Wait for it, or name another directory: hydra.run.dir=….")
    return _begin(fresh, digest, False, lock)


def finished_runs(logs: Path) -> list[Path]:
    """Return the finished runs below `logs`, the newest first."""
    finished = [file.parent for file in logs.glob(f"*runs/**/{RUN_FILE}") if _read(file).get("finished")]
    return sorted(finished, key=lambda path: (path / RUN_FILE).stat().st_mtime, reverse=True)


def adapter_kind(run: str | os.PathLike, kinds: Sequence[str] = ADAPTER_KINDS) -> str | None:
    """Return the first of these kinds of adapter that a training run has; None if it has none."""
    return next((kind for kind in kinds if (Path(run) / kind).is_dir()), None)


def training_run(run: str, logs: Path, adapters: Sequence[str] = ADAPTER_KINDS) -> Path:
    """Find a training run that has an adapter of one of these kinds: `run` is its directory, or 'latest'.

    Raises UserError where there is none.
    """
    wanted = " or ".join(adapters)
    if run == "latest":
        for directory in finished_runs(logs / "train"):
            if adapter_kind(directory, adapters):
                return directory.resolve()
        raise UserError(
            f"There is no finished training run with an adapter ({wanted}) below {logs / 'train'}. Run python train.py "
            "first, or give run=DIR."
        )
    directory = Path(run)
    if not (directory / CONFIG_FILE).is_file():
        raise UserError(
            f"{directory} is no finished training run: it has no {CONFIG_FILE}. Give run=<directory that python train.py "
            "named>, or run=latest."
        )
    if not adapter_kind(directory, adapters):
        raise UserError(
            f"{directory} has no adapter of this kind ({wanted}). Give the directory of a finished training run that has."
        )
    return directory.resolve()


def _begin(directory: Path, digest: str, resumed: bool, lock: Lock) -> RunDirectory:
    write_json(directory / RUN_FILE, {"digest": digest, "finished": False, "launch": _launch()})
    os.environ[SHARED] = str(directory)
    return RunDirectory(directory, digest, resumed, lock)


def _rank() -> int:
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def _launch() -> str | None:
    """Return what the processes of one torchrun have in common; None without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return ":".join(os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"))


def _directory_of_rank_zero(logs: Path, digest: str) -> Path:
    if SHARED in os.environ:
        return Path(os.environ[SHARED])
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        for file in logs.glob(f"*runs/**/{RUN_FILE}"):
            record = _read(file)
            if record.get("digest") == digest and record.get("launch") == _launch() and not record.get("finished"):
                return file.parent
        time.sleep(0.2)
    raise UserError("The first process of this job made no run directory. Look at its output for the reason.")


def discard(directory: Path) -> None:
    """Remove a directory that Hydra made for a job, unless it holds results."""
    if directory.is_dir() and not _has_results(directory):
        shutil.rmtree(directory)


def _has_results(directory: Path) -> bool:
    return any(child.name not in (".hydra", LOCK_FILE) and child.suffix != ".log" for child in directory.iterdir())


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
