"""The directories that Hydra makes for runs and sweeps, looked at before it does: nothing of an earlier run is replaced.

Hydra calls `OutputDirectory` (conf/hydra/default.yaml) once a command is composed. The jobs of a sweep have directories
that only Hydra knows; those are looked at when a job opens its run (storage/run_directory.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cptlab.errors import UserError
from cptlab.progress import is_main_process
from cptlab.settings.sweep import begin_sweep, is_current_sweep
from cptlab.storage.damaged import writable
from cptlab.storage.run_directory import note_new, read_record, refuse_other_run
from cptlab.storage.sweep_directory import SWEEP_FILE

HYDRAS_FILE = "multirun.yaml"  # Hydra's own record of a sweep


class OutputDirectory(Callback):
    """Refuses a directory that a run cannot have, with one sentence and exit code 2."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Look at the directory of a single run."""
        with _refusing():
            check_paths(config)
            directory = _directory(config, "hydra.run.dir")
            refuse_other_run(directory, finished=True)
            note_new(directory)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Look at the directory of a sweep."""
        with _refusing():
            check_paths(config)
            directory = _directory(config, "hydra.sweep.dir")
            _refuse_other_sweep(directory, config)
            refuse_other_run(directory)
            _refuse_shared_directory(config)
            note_new(directory)
            begin_sweep(directory)


def _directory(config: DictConfig, name: str) -> Path:
    value = str(OmegaConf.select(config, name))
    if not value:
        raise UserError(f"{name}= cannot be: it must name a directory. Give one, or leave it out.")
    check_directory(Path(value), name)
    return Path(value)


def check_paths(config: DictConfig) -> None:
    """Raise UserError for the first directory of group paths that a command cannot write to."""
    for name in ("logs", "cache"):
        value = OmegaConf.select(config, f"paths.{name}")
        if isinstance(value, str) and value:  # what it must be is checked with all other settings
            check_directory(Path(value), f"paths.{name}")


def check_directory(directory: Path, name: str) -> None:
    """Raise UserError, naming the setting, if a directory is not there and cannot be made, or cannot be written to."""
    place = directory.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{name}={directory} cannot be: {place} is no directory. Name another one.")
    if not writable(place):
        raise UserError(
            f"{name}={directory} cannot be: {place} cannot be written to by this user. Name another directory, or change "
            "its permissions."
        )


@contextmanager
def _refusing() -> Iterator[None]:
    """End the process at a UserError: Hydra would make a warning of it, and go on."""
    try:
        yield
    except UserError as error:
        if not is_main_process():
            return  # the others of a job share the directory of the first, which has looked at it
        if os.environ.get("CPTLAB_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _refuse_other_sweep(directory: Path, config: DictConfig) -> None:
    """A sweep that is started again has the same overrides, and goes on in its directory."""
    path = directory / HYDRAS_FILE
    if not path.is_file() or is_current_sweep(read_record(directory / SWEEP_FILE).get("arguments")):
        return
    try:
        earlier = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["overrides"]["task"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        earlier = None
    if earlier != list(config.hydra.overrides.task):
        raise UserError(
            f"{directory} holds another sweep ({HYDRAS_FILE}). Name another directory, or leave out hydra.sweep.dir."
        )


def _refuse_shared_directory(config: DictConfig) -> None:
    """Two jobs of a sweep must not have one directory."""
    subdir = OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[index,call-overload]
    if "${" in str(subdir):
        return
    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    several = any(override.is_sweep_override() for override in overrides)
    if several or OmegaConf.select(config, "hydra.sweeper.params"):
        raise UserError(
            f"hydra.sweep.subdir={subdir} gives all jobs of the sweep one directory. Leave it out, or number them: "
            "'hydra.sweep.subdir=${hydra.job.num}'."
        )
