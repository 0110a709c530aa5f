"""The wrapper of every command: a user's mistake ends in one sentence on stderr and exit code 2, without a traceback.

Set CPTLAB_TRACEBACK=1 to see where it came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cptlab.errors import UserError
from cptlab.process.ends import code_of, command
from cptlab.progress import is_main_process
from cptlab.settings.config_source import config_directory, use_declared_defaults
from cptlab.settings.debug import shrink
from cptlab.settings.explanations import explain, refused_group, refused_option
from cptlab.settings.launchers import end_with, is_death_of_a_job, share_cores
from cptlab.settings.output_directory import check_paths
from cptlab.settings.sweep import Sweep
from cptlab.settings.tree import print_tree
from cptlab.settings.validation import validate
from cptlab.storage.run_directory import SHARED as OPEN_RUN
from cptlab.storage.run_directory import discard

MULTIRUN = ("-m", "--multirun")
SAMPLES = 20  # programs per task where nothing else is said


def hydra_command(
    name: str,
    step: Callable[[DictConfig, Path], Any],
    expand: Callable[[Sequence[str]], tuple[list[str], bool]] | None = None,
) -> Callable[..., int]:
    """Return the `main(arguments)` of a command that takes Hydra's overrides.

    `expand` turns the arguments into those that Hydra gets, and says whether more jobs will be there later.

    `step` gets the validated config of conf/NAME.yaml and a fresh run directory, which need not be used. Without
    `arguments`, those of the process are taken. A user's mistake ends the process with exit code 2.
    """

    @command(_kept)
    def main(arguments: Sequence[str] | None = None) -> int:
        if arguments is not None:
            sys.argv[1:] = arguments
        sys.argv[1:] = sorted(sys.argv[1:], key=MULTIRUN.__contains__)  # Hydra takes no overrides on both sides of -m
        sweep = Sweep(sys.argv[1:])
        if expand is not None:
            sys.argv[1:], sweep.more_later = expand(sys.argv[1:])

        @hydra.main(version_base="1.3", config_path=str(config_directory()), config_name=name)
        def composed(config: DictConfig) -> float | None:
            fresh = Path(HydraConfig.get().runtime.output_dir)
            return job(lambda config: step(config, fresh), config, sweep)

        whole = False
        try:
            entry(composed, name)
            whole = True
        finally:
            code = sweep.end(whole)
        return code

    return main


def _kept() -> str:
    """What a command that is stopped says of its work."""
    directory = os.environ.get(OPEN_RUN)
    where = f" in {directory}" if directory else ""
    return f"What is finished is kept{where}; the same command goes on from there."


def entry(main: Callable[[], Any], command: str) -> None:
    """Run the `@hydra.main` function of a command; a user's mistake is one sentence on stderr and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands its errors on instead of printing them
    use_declared_defaults()
    try:
        if refused := refused_option(sys.argv[1:], command):
            raise UserError(refused)
        main()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("CPTLAB_TRACEBACK"):
            raise
        print(f"error: {explain(error, command)}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if not is_death_of_a_job(error) or os.environ.get("CPTLAB_TRACEBACK"):
            raise
        print(
            "error: The process of a job was killed, perhaps for want of memory. What is finished is kept: the same "
            "command goes on with the jobs that are missing. Fewer at a time (hydra.launcher.n_jobs) need less memory.",
            file=sys.stderr,
        )
        sys.exit(1)
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # how Hydra refuses adapter=null and the like
            raise
        print(f"error: {refused_group(sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)


def job(run: Callable[[DictConfig], Any], config: DictConfig, sweep: Sweep) -> Any:
    """Validate and print the config of one job, and run it. A mistake ends a single run here, without Hydra's extra line.

    In a sweep, a job that fails is named and returns None, and the others go on.
    """
    mode = HydraConfig.get().mode
    try:
        if mode == RunMode.MULTIRUN:
            end_with(sweep.process)
            sweep.begin_job()
        strategy = OmegaConf.select(config, "trainer.strategy")
        if mode == RunMode.MULTIRUN and strategy not in (None, "auto") and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise UserError(
                "Under -m, a job cannot start its other processes by itself: they would run the whole sweep again. "
                "Launch with torchrun, or use trainer=cpu or trainer=gpu."
            )
        if config.get("task_name") != HydraConfig.get().job.config_name:
            raise UserError(
                f"task_name={config.get('task_name')} cannot be: the command gives its own name. Leave task_name out."
            )
        prepare(config)
        share_cores(config)
        return run(config)
    except Exception as error:
        if isinstance(error, UserError):
            discard(Path(HydraConfig.get().runtime.output_dir))
        if mode == RunMode.MULTIRUN:
            sweep.note_failure(error)
            return None
        sys.exit(code_of(error))


def prepare(config: DictConfig) -> None:
    """Validate a composed config, shrink it where debug=… asks for it, and print it as a tree. Raises UserError."""
    validate(config)
    check_paths(config)
    _settle(config)
    if config.get("debug") is not None:
        shrink(config)
        validate(config)
    if config.print_config and is_main_process():
        print_tree(config)


def _settle(config: DictConfig) -> None:
    """Put values in the place of settings whose null depends on other settings, so that the run's record has them."""
    if config.get("prompting") is not None and config.get("backbone") is not None:
        config.backbone = OmegaConf.merge(config.backbone, {"prompting": config.prompting})
    if "n" in config and config.n is None and config.get("completions") is None:
        config.n = 1 if config.decoding.sampling.get("temperature") == 0 else SAMPLES
