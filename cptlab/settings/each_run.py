"""`cptlab evaluate runs=…`: the finished training runs of sweeps, each evaluated by a job of one sweep.

    runs=logs/train/multiruns/<time>          all that is there
    'runs=[<sweep>,<other sweep>,<run>]'      several

The command becomes a sweep over `run`, so that it resumes, names what fails and takes any launcher as other sweeps do.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from omegaconf import OmegaConf

from cptlab.errors import UserError
from cptlab.progress import is_main_process
from cptlab.storage.run_directory import RUN_FILE, adapter_kind, read_record
from cptlab.storage.sweep_directory import read_failures

SETTING, RESOLVER = "runs", "cptlab.folder_of"
SUBDIR = "hydra.sweep.subdir"


@dataclass
class TrainingRuns:
    """What directories hold: finished training runs, and in sentences what else."""

    finished: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def one_job_each(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments with `runs=…` replaced by a sweep over `run`, and whether some training run was left out.

    Raises UserError where no finished training run is there.
    """
    given = [text for text in arguments if text.partition("=")[0] == SETTING and text != f"{SETTING}=null"]
    if not given or any(text in ("--cfg", "-c", "--info", "--help", "-h", "--hydra-help") for text in arguments):
        return list(arguments), False
    rest = [text for text in arguments if text not in given]
    names = {text.partition("=")[0] for text in rest}
    for other in ("run", "completions"):
        if other in names:
            raise UserError(f"{SETTING} and {other} cannot both be given. Leave one of them out.")
    found = find_training_runs([Path(name) for name in _values(given[-1])])
    if is_main_process():
        for sentence in found.left_out:
            print(f"Left out: {sentence}", file=sys.stderr, flush=True)
    if not found.finished:
        raise UserError(f"{given[-1]} holds no finished training run. Give the directory of a sweep of cptlab train.")
    runs = ",".join(_quoted(str(run)) for run in found.finished)
    rest = [text for text in rest if text not in ("-m", "--multirun")]
    several = any(parsed.is_sweep_override() for parsed in _parsed(rest))
    if SUBDIR not in names and not several:
        folders = folder_names(found.finished)
        OmegaConf.register_new_resolver(RESOLVER, lambda run: folders[str(run)], replace=True)
        rest.append(f'{SUBDIR}="${{{RESOLVER}:${{run}}}}"')
    return [*rest, f"run={runs}", "-m"], bool(found.left_out)


def find_training_runs(directories: Sequence[Path]) -> TrainingRuns:
    """Return the training runs in these directories, each once, those of a sweep in the order of its jobs."""
    found = TrainingRuns()
    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"There is no directory {directory}. Give the directory of a sweep, or of a training run.")
        runs = [file.parent for file in directory.rglob(RUN_FILE)]
        failures = read_failures(directory)
        failed = {directory / str(failure.number) for failure in failures}  # each named once, with its reason
        for run in sorted(runs, key=_in_order):
            if not read_record(run / RUN_FILE).get("finished"):
                if run in failed:
                    continue
                found.left_out.append(f"{run} is not finished. Its command goes on with it; then run this one again.")
            elif adapter_kind(run) is None:
                found.left_out.append(f"{run} is no training run.")
            elif run not in found.finished:
                found.finished.append(run)
        for failure in failures:
            found.left_out.append(f"{directory}, {failure}")
    return found


def folder_names(runs: Sequence[Path]) -> Mapping[str, str]:
    """Return a name for the folder of each run: the last parts of its path, as many as make all names differ."""
    names: dict[str, str] = {}
    for parts in range(1, max(len(run.parts) for run in runs) + 1):
        names = {str(run): "_".join(run.parts[-parts:]).strip("/") for run in runs}
        if len(set(names.values())) == len(runs):
            break
    return names


def _in_order(run: Path) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in run.parts]


def _values(argument: str) -> list[str]:
    """Return the directories of runs=a, runs=a,b and runs=[a,b]."""
    (parsed,) = _parsed([argument])
    value: Any = parsed.value()
    if isinstance(value, ChoiceSweep):
        value = value.list
    values = value if isinstance(value, list) else [value]
    return [one.text if isinstance(one, QuotedString) else str(one) for one in values]


def _parsed(arguments: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides([text for text in arguments if not text.startswith("-")])


def _quoted(text: str) -> str:
    return QuotedString(text, quote=Quote.single).with_quotes()
