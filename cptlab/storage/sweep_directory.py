"""Sweep directories: `logs/<task>/multiruns/<time>`, and how the same sweep finds the one that ended early.

    earlier = unfinished_sweep(logs / "train" / "multiruns", arguments)    # None: begin a new one
    sweep = SweepDirectory(directory, arguments)                           # holds it until `close`
    done = finished_jobs(directory)                                        # they are not repeated
    note_failure(directory, Failure(3, "seed=1", "why", 2))                # from the process of the job
    sweep.close()                                                          # the failures of its jobs

`sweep.json` holds the arguments of the command and whether every job finished, `failures/<n>.json` why job n failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cptlab.storage.atomic import write_json
from cptlab.storage.locks import try_lock
from cptlab.storage.run_directory import RUN_FILE, read_record

SWEEP_FILE, FAILURES = "sweep.json", "failures"
LAUNCHER = "hydra/launcher", "hydra.launcher."  # how jobs are started, which changes none of them


@dataclass(frozen=True)
class Failure:
    """A job of a sweep that failed: its number, its overrides, what it said, and its exit code."""

    number: int
    overrides: str
    sentence: str
    code: int

    def __str__(self) -> str:
        return f"job {self.number} ({self.overrides}): {self.sentence}"


class SweepDirectory:
    """The directory of the sweep that this process is at work on. What failed before is forgotten."""

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        self.directory, self.arguments = directory, list(arguments)
        self._lock = try_lock(directory)  # None where several processes share a directory that the user named
        shutil.rmtree(directory / FAILURES, ignore_errors=True)
        self._write(finished=False)

    def close(self, whole: bool) -> list[Failure]:
        """Let the directory go, and return the failures of its jobs. `whole`: every job had its turn.

        If all finished, the same command begins a new sweep from now on.
        """
        failures = read_failures(self.directory)
        if whole and not failures:
            self._write(finished=True)
        if self._lock is not None:
            self._lock.release()
        return failures

    def _write(self, finished: bool) -> None:
        write_json(self.directory / SWEEP_FILE, {"arguments": self.arguments, "finished": finished})


def note_failure(sweep: Path, failure: Failure) -> None:
    """Keep why a job failed, so that the process that started it can say so at the end."""
    write_json(sweep / FAILURES / f"{failure.number}.json", dataclasses.asdict(failure))


def read_failures(sweep: Path) -> list[Failure]:
    """Return the jobs of a sweep that failed, in order."""
    found = [Failure(**read_record(file)) for file in (sweep / FAILURES).glob("*.json")]
    return sorted(found, key=lambda failure: failure.number)


def unfinished_sweep(sweeps: Path, arguments: Sequence[str]) -> Path | None:
    """Return the newest directory in `sweeps` of a sweep with these arguments that ended early and that nobody works on."""
    for file in sorted(sweeps.glob(f"*/{SWEEP_FILE}"), reverse=True):
        record = read_record(file)
        if not same_sweep(record.get("arguments"), arguments) or record.get("finished", True):
            continue
        with contextlib.suppress(PermissionError):  # another user's
            lock = try_lock(file.parent)
            if lock is not None:
                lock.release()
                return file.parent
    return None


def same_sweep(first: Sequence[str] | None, second: Sequence[str]) -> bool:
    """Whether two commands are one sweep, whatever starts its jobs."""
    one, other = ([text for text in some if not text.startswith(LAUNCHER)] for some in (first or (), second))
    return first is not None and one == other


def finished_jobs(sweep: Path) -> dict[str, Path]:
    """Return the finished runs in the directory of a sweep, by the digest of their settings."""
    records = {file.parent: read_record(file) for file in sorted(sweep.rglob(RUN_FILE))}
    return {str(record.get("digest")): run for run, record in records.items() if record.get("finished")}
