"""Run directories: `logs/<task>/runs/<time>`, and how the same command finds the run that was killed.

    run = open_run(fresh, logs, digest)     # a command opens one for its results
    ...                                     # writes below run.directory
    run.finish()

`run.json` in a run directory holds the digest of its settings, whether it finished, and what the run is: its name, group,
choices (cptlab/settings/run_record.py). A command whose settings match
an unfinished run that no process holds goes on in that directory, if this user may write to it. A directory that holds any
other run is refused, and left as it is. The processes of one DDP job share one directory. docs/results-format.md says what
the directories hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.storage.atomic import write_json
from cptlab.storage.damaged import writable
from cptlab.storage.locks import Lock, is_locked, try_lock

RUN_FILE, CONFIG_FILE = "run.json", "config.yaml"
FIGURES_FILE = "figures.json"  # of a table of a record
SHARED = "CPTLAB_RUN_DIR"  # how processes that Lightning starts learn the directory of the first
WAIT_SECONDS = 600
ADAPTER_KINDS = ("prefix", "lora", "full")  # each the name of a folder in a training run
# what no new run may find in its directory: an earlier run's files, or a user's own of the same name
RESULTS = (
    *(
        RUN_FILE,
        CONFIG_FILE,
        "metrics.json",
        "omega.json",
        "dilution.json",
        "preference.json",
        "tasks.jsonl",
        "verdicts.jsonl",
        "training",
    ),
    *ADAPTER_KINDS,
)
# settings that change no result, so runs that differ in them alone are the same run
INCIDENTAL = (
    *("paths", "logger", "print_config", "tags", "callbacks", "task_name", "workers", "optimized_metric", "compute"),
    *("estimate", "shards", "shard", "ray", "ablation", "debug"),
)


@dataclass
class RunDirectory:
    """An open run directory. `resumed`: an earlier process began it. `lock` is None in all but the first process.

    `record` says what the run is, in the words of the command that began it.
    """

    directory: Path
    digest: str
    resumed: bool
    lock: Lock | None
    record: Mapping[str, Any] = field(default_factory=dict)

    def finish(self, **facts: Any) -> None:
        """Mark the run as finished: from now on, the same command starts a new one. `facts` go into run.json."""
        if self.lock is not None:
            write_json(self.directory / RUN_FILE, {"digest": self.digest, "finished": True, **self.record, **facts})
            self.lock.release()
            os.environ.pop(SHARED, None)


def open_run(fresh: Path, logs: Path, digest: str, record: Mapping[str, Any] | None = None) -> RunDirectory:
    """Open the run directory for settings with this digest: an unfinished one below `logs`, or `fresh`.

    `record` says what the run is, for run.json; an unfinished run keeps its own.

    An unfinished run in `fresh` itself comes first. Raises UserError, before anything is written, if `fresh` holds any
    other run or is in use by another process.
    """
    if _rank() > 0:
        discard(fresh)
        return RunDirectory(_directory_of_rank_zero(logs, digest), digest, False, None, record or {})
    for directory in (fresh, *(file.parent for file in sorted(logs.glob(f"*runs/**/{RUN_FILE}")))):
        if not _is_unfinished(directory, digest) or not writable(directory, *directory.rglob("*")):
            continue
        lock = try_lock(directory)
        if lock is None:
            continue  # another process is at work on it
        if not _is_unfinished(directory, digest):
            lock.release()
            continue  # another process has just been done with it
        if fresh != directory:
            discard(fresh)
        return _begin(directory, digest, True, lock, record or {})
    refuse_other_run(fresh)
    fresh.mkdir(parents=True, exist_ok=True)
    lock = try_lock(fresh)
    if lock is None:
        raise UserError(
            f"{fresh} is in use by another process. Wait for it, or name another directory: hydra.run.dir=…."
        )
    try:
        refuse_other_run(fresh)  # another process may just have been done with it
    except UserError:
        lock.release()
        raise
    return _begin(fresh, digest, False, lock, record or {})


def refuse_other_run(directory: Path, *, finished: bool = False) -> None:
    """Raise UserError if a directory holds a run. `finished`: an unfinished one is passed over, as it may be gone on with."""
    there = [name for name in RESULTS if os.path.lexists(directory / name)]
    record = read_record(directory / RUN_FILE)
    if not there or (finished and "digest" in record and not record.get("finished")):
        return
    if record.get("finished"):
        what = "holds a finished run"
    elif "digest" in record:
        what = "is in use by another process" if is_locked(directory) else "holds another run, which is not finished"
    else:
        what = f"already has {there[0]}, which a run would replace"
    raise UserError(f"{directory} {what}. Name another directory, or none: then a new one is made.")


def finished_runs(logs: Path) -> list[Path]:
    """Return the finished runs below `logs`, the newest first."""
    finished = [file.parent for file in logs.glob(f"*runs/**/{RUN_FILE}") if read_record(file).get("finished")]
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
            f"There is no finished training run with an adapter ({wanted}) below {logs / 'train'}. Run cptlab train "
            "first, or give run=DIR."
        )
    directory = Path(run)
    if not (directory / CONFIG_FILE).is_file():
        raise UserError(
            f"{directory} is no finished training run: it has no {CONFIG_FILE}. Give run=<directory that cptlab train "
            "named>, or run=latest."
        )
    if not adapter_kind(directory, adapters):
        raise UserError(
            f"{directory} has no adapter of this kind ({wanted}). Give the directory of a finished training run that has."
        )
    return directory.resolve()


def _begin(directory: Path, digest: str, resumed: bool, lock: Lock, record: Mapping[str, Any]) -> RunDirectory:
    earlier = read_record(directory / RUN_FILE) if resumed else {}
    record = {name: earlier.get(name, value) for name, value in record.items()}
    write_json(directory / RUN_FILE, {"digest": digest, "finished": False, "launch": _launch(), **record})
    os.environ[SHARED] = str(directory)
    return RunDirectory(directory, digest, resumed, lock, record)


def _is_unfinished(directory: Path, digest: str) -> bool:
    record = read_record(directory / RUN_FILE)
    return record.get("digest") == digest and not record.get("finished")


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
            record = read_record(file)
            if record.get("digest") == digest and record.get("launch") == _launch() and not record.get("finished"):
                return file.parent
        time.sleep(0.2)
    raise UserError("The first process of this job made no run directory. Look at its output for the reason.")


_made: set[Path] = set()  # directories that were not there before this process


def note_new(directory: Path) -> None:
    """Remember that this process is about to make a directory, if it does."""
    if not os.path.lexists(directory):
        _made.add(directory.absolute())


def discard(directory: Path) -> None:
    """Remove an empty directory that this process made, as `note_new` knows; any other stays as it is."""
    directory = directory.absolute()
    if _made.intersection((directory, *directory.parents)):
        with contextlib.suppress(OSError):  # it is not there, or it holds something
            os.rmdir(directory)


def read_record(file: Path) -> dict[str, Any]:
    """Return the content of a run.json or sweep.json; nothing where it cannot be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
