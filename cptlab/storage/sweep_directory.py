"""Sweep directories: `logs/<task>/multiruns/<time>`, and how the same sweep finds the one that ended early.

    earlier = unfinished_sweep(logs / "train" / "multiruns", arguments)    # None: begin a new one
    sweep = SweepDirectory(directory, arguments)                           # holds it until `close`
    done = finished_jobs(directory)                                        # they are not repeated
    sweep.close(finished=True)

`sweep.json` holds the arguments of the command and whether every job finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from cptlab.storage.atomic import write_json
from cptlab.storage.locks import try_lock
from cptlab.storage.run_directory import RUN_FILE, read_record

SWEEP_FILE = "sweep.json"


class SweepDirectory:
    """The directory of the sweep that this process is at work on."""

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        self.directory, self.arguments = directory, list(arguments)
        self._lock = try_lock(directory)  # None where several processes share a directory that the user named
        self._write(finished=False)

    def close(self, finished: bool) -> None:
        """Let the directory go. If all jobs `finished`, the same command begins a new sweep from now on."""
        if finished:
            self._write(finished)
        if self._lock is not None:
            self._lock.release()

    def _write(self, finished: bool) -> None:
        write_json(self.directory / SWEEP_FILE, {"arguments": self.arguments, "finished": finished})


def unfinished_sweep(sweeps: Path, arguments: Sequence[str]) -> Path | None:
    """Return the newest directory in `sweeps` of a sweep with these arguments that ended early and that nobody works on."""
    for file in sorted(sweeps.glob(f"*/{SWEEP_FILE}"), reverse=True):
        record = read_record(file)
        if record.get("arguments") != list(arguments) or record.get("finished", True):
            continue
        with contextlib.suppress(PermissionError):  # another user's
            lock = try_lock(file.parent)
            if lock is not None:
                lock.release()
                return file.parent
    return None


def finished_jobs(sweep: Path) -> dict[str, Path]:
    """Return the finished runs in the directory of a sweep, by the digest of their settings."""
    records = {file.parent: read_record(file) for file in sorted(sweep.rglob(RUN_FILE))}
    return {str(record.get("digest")): run for run, record in records.items() if record.get("finished")}
