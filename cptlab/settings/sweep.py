"""A sweep (`-m`): its jobs under any launcher, each failure named, and what it does when it is started again.

A job that fails is named when it fails and again at the end; the others go on. A sweep that was killed, or in which a
job failed, goes on in its own directory when the same command is started again (cptlab/storage/sweep_directory.py).
A launcher may start the jobs in other processes: they get a copy of the `Sweep`, and leave what failed in that directory.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from cptlab.errors import UserError
from cptlab.process.ends import FAILURE, MISTAKE, sentence_of
from cptlab.progress import is_main_process
from cptlab.storage.sweep_directory import (
    Failure,
    SweepDirectory,
    finished_jobs,
    note_failure,
    same_sweep,
    unfinished_sweep,
)

RESOLVER = "cptlab.sweep"  # ${cptlab.sweep:<directory of sweeps>,<name of a new one>} in conf/hydra/default.yaml

_current: list[Sweep] = []  # the sweep of this process, for Hydra's callback
_finished_before: dict[
    str, Path
] = {}  # by digest: what an earlier process finished of the sweep that this one goes on with


class Sweep:
    """The jobs of a command, if it runs a sweep. `arguments` are those of the command."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.process = os.getpid()  # that started it
        self.place: str | None = None  # the directory, once Hydra has asked for it
        self.directory: SweepDirectory | None = None  # of the process that started the sweep
        self.more_later = False  # the same command will have more jobs: it goes on here then
        self.jobs_begun = False
        self.failures: list[Failure] = []  # of jobs in this process
        _current[:] = [self]
        _finished_before.clear()
        OmegaConf.register_new_resolver(RESOLVER, self._place, replace=True, use_cache=True)

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self.arguments, "process": self.process, "place": self.place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy in the process of a job, to which Hydra hands the resolver, too."""
        self.__dict__.update(state, directory=None, jobs_begun=False, failures=[])

    def _place(self, sweeps: str, fresh: str) -> str:
        """Return the directory of this sweep: that of an earlier one that ended early, or a fresh one."""
        if self.place is None:
            earlier = unfinished_sweep(Path(sweeps), self.arguments)
            if earlier is not None and is_main_process():
                print(f"Going on with the unfinished sweep {earlier}", file=sys.stderr, flush=True)
            self.place = str(earlier or Path(sweeps) / fresh)
        return self.place

    def begin(self, directory: Path) -> None:
        """Hold the directory of the sweep, before any job is started."""
        self.directory = SweepDirectory(directory, self.arguments) if is_main_process() else None

    def begin_job(self) -> None:
        """Before the first job of a process: note what an earlier one finished."""
        if not self.jobs_begun:
            self.jobs_begun = True
            _finished_before.update(finished_jobs(Path(HydraConfig.get().sweep.dir)))

    def note_failure(self, error: Exception) -> None:
        """Name the job that failed, with its overrides and the reason."""
        sentence = sentence_of(error)
        if sentence is None or os.environ.get("CPTLAB_TRACEBACK"):
            traceback.print_exception(error)
        if sentence is None:
            sentence = f"{type(error).__name__}: {error}"
        settings = HydraConfig.get()
        code = MISTAKE if isinstance(error, UserError) else FAILURE
        failure = Failure(settings.job.num, " ".join(settings.overrides.task), sentence, code)
        self.failures.append(failure)
        if is_main_process():
            note_failure(Path(settings.sweep.dir), failure)
        print(f"error: {failure}", file=sys.stderr, flush=True)

    def end(self, whole: bool) -> int:
        """Return the exit code of the sweep, after a list of the jobs that failed. `whole`: every job had its turn."""
        failures = self.failures if self.directory is None else self.directory.close(whole and not self.more_later)
        if not failures:
            return 0
        lines = [f"  {failure}" for failure in failures]
        print(
            f"error: {len(lines)} of the sweep's jobs failed. The same command does them again and keeps the others.",
            *lines,
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
        return FAILURE if any(failure.code == FAILURE for failure in failures) else MISTAKE


def begin_sweep(directory: Path) -> None:
    """Begin the sweep of this process, whose directory Hydra has composed by now."""
    for sweep in _current:
        sweep.begin(directory)


def is_current_sweep(arguments: Sequence[str] | None) -> bool:
    """Whether these are the arguments of the sweep of this process."""
    return any(same_sweep(arguments, sweep.arguments) for sweep in _current)


def job_finished_before(digest: str) -> Path | None:
    """Return the run that an earlier process finished, in this sweep, with settings of this digest."""
    return _finished_before.get(digest)
