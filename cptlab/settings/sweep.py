"""A sweep (`-m`): its jobs one after the other, each failure named, and what it does when it is started again.

A job that fails is named when it fails and again at the end; the others go on. A sweep that was killed, or in which a
job failed, goes on in its own directory when the same command is started again (cptlab/storage/sweep_directory.py).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from cptlab.errors import UserError
from cptlab.process.ends import FAILURE, MISTAKE, sentence_of
from cptlab.progress import is_main_process
from cptlab.storage.sweep_directory import SweepDirectory, finished_jobs, unfinished_sweep

RESOLVER = "cptlab.sweep"  # ${cptlab.sweep:<directory of sweeps>,<name of a new one>} in conf/hydra/default.yaml

_finished_before: dict[
    str, Path
] = {}  # by digest: what an earlier process finished of the sweep that this one goes on with


class Sweep:
    """The jobs of this process, if it runs a sweep. `arguments` are those of the command."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.begun = False
        self.directory: SweepDirectory | None = None
        self.failures: list[tuple[str, str, int]] = []  # job, sentence, exit code
        _finished_before.clear()
        OmegaConf.register_new_resolver(RESOLVER, self._place, replace=True, use_cache=True)

    def _place(self, sweeps: str, fresh: str) -> str:
        """Return the directory of this sweep: that of an earlier one that ended early, or a fresh one."""
        earlier = unfinished_sweep(Path(sweeps), self.arguments)
        if earlier is not None and is_main_process():
            print(f"Going on with the unfinished sweep {earlier}", file=sys.stderr, flush=True)
        return str(earlier or Path(sweeps) / fresh)

    def begin_job(self) -> None:
        """Before the first job: note what an earlier process finished, and hold the directory of the sweep."""
        if not self.begun:
            self.begun, directory = True, Path(HydraConfig.get().sweep.dir)
            _finished_before.update(finished_jobs(directory))
            self.directory = SweepDirectory(directory, self.arguments) if is_main_process() else None

    def note_failure(self, error: Exception) -> None:
        """Name the job that failed, with its overrides and the reason."""
        sentence = sentence_of(error)
        if sentence is None or os.environ.get("CPTLAB_TRACEBACK"):
            traceback.print_exception(error)
        if sentence is None:
            sentence = f"{type(error).__name__}: {error}"
        settings = HydraConfig.get()
        job = f"job {settings.job.num} ({' '.join(settings.overrides.task)})"
        self.failures.append((job, sentence, MISTAKE if isinstance(error, UserError) else FAILURE))
        print(f"error: {job}: {sentence}", file=sys.stderr, flush=True)

    def end(self, whole: bool) -> int:
        """Return the exit code of the sweep, after a list of the jobs that failed. `whole`: every job had its turn."""
        if self.directory is not None:
            self.directory.close(finished=whole and not self.failures)
        if not self.failures:
            return 0
        lines = [f"  {job}: {sentence}" for job, sentence, _ in self.failures]
        again = "The same command does them again and keeps the others." if self.directory is not None else ""
        print(f"error: {len(lines)} of the sweep's jobs failed. {again}", *lines, sep="\n", file=sys.stderr, flush=True)
        return max((code for _, _, code in self.failures if code == FAILURE), default=MISTAKE)


def job_finished_before(digest: str) -> Path | None:
    """Return the run that an earlier process finished, in this sweep, with settings of this digest."""
    return _finished_before.get(digest)
