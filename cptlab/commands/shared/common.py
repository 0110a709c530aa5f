"""Helpers that the commands share: messages, run directories, loggers, the optimized metric."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cptlab.errors import UserError
from cptlab.progress import is_main_process
from cptlab.settings.instantiate import instantiate
from cptlab.settings.run_record import describe
from cptlab.settings.sweep import job_finished_before
from cptlab.storage.atomic import write_text
from cptlab.storage.digests import fingerprint
from cptlab.storage.run_directory import CONFIG_FILE, INCIDENTAL, RunDirectory, open_run
from cptlab.tracking.mirrors import Mirror

if TYPE_CHECKING:
    from cptlab.judging.scorers.scorer import Scorer
    from cptlab.systems.judge import Judge

ROOT = Path(__file__).resolve().parents[3]
HYDRAS = ".hydra"  # where Hydra's tools look
# why tasks and pairs are left out, as metrics.json and tables have it
TOO_LONG, EXCLUDED = "too long for the context", "excluded by benchmark.exclude"
OUR_LOGGERS = "cptlab.tracking."
PAIRS_FILE, STATISTICS_FILE, METRICS_FILE = "pairs.jsonl", "statistics.json", "metrics.json"


def say(text: str) -> None:
    """Print a line for the user on stderr, from the main process alone."""
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def say_left_out(left_out: Sequence[str], of: int, what: str = "tasks") -> None:
    """Say how many of the tasks or pairs are too long, and which is the first."""
    if left_out:
        say(
            f"Left out, because they are {TOO_LONG}: {len(left_out)} of {of} {what}, such as {left_out[0]}. "
            "metrics.json lists them."
        )


def check_sandbox(config: DictConfig) -> dict[str, Any]:
    """Probe the sandbox and report its level. Raises UserError if it is weaker than the setting `sandbox` asks for."""
    from cptlab.judging.execution.executor import probe_sandbox
    from cptlab.judging.sandbox.levels import explanation

    found = probe_sandbox(config.sandbox)
    why = explanation(found["level"], found["reasons"])
    say(f"Sandbox: {found['level']} (asked for: {config.sandbox} or stronger){why and '. '}{why}")
    return found


def build_judge(config: DictConfig) -> Judge:
    """Build the judge of a command that makes programs. Raises UserError where its scorer does not run."""
    from cptlab.systems.judge import Judge

    limits = instantiate(config.judge, "judge")
    cache = Path(config.paths.cache).absolute()  # workers of other processes are in other directories
    alone = config.get("shard") is None and config.get("ray") is None
    return Judge(cache, build_scorer(config), config.workers, config.sandbox, limits, score_cache=alone)


def build_scorer(config: DictConfig) -> Scorer:
    """Build the scorer of a command and check that it runs. Raises UserError where it does not."""
    scorer = instantiate(config.scorer, "scorer", _convert_="all")  # scorers that combine others get plain objects
    scorer.check()
    return scorer


def begin(
    config: DictConfig, fresh: Path, task: str, training: Mapping[str, str] | None = None, **content: Any
) -> RunDirectory:
    """Begin the run of these settings and this content, or go on with it. `training`: the run behind each system."""
    record = describe(config, training)
    run = open_run(fresh, Path(config.paths.logs) / task, _digest(config, **content), record)
    say(f"{'Going on with the unfinished run' if run.resumed else 'Run directory:'} {run.directory}")
    return run


def write_config(config: DictConfig, run: RunDirectory) -> None:
    """Write the run's settings, their references resolved, as its config.yaml, and Hydra's own records to .hydra."""
    write_text(run.directory / CONFIG_FILE, OmegaConf.to_yaml(config, resolve=True))
    if HydraConfig.initialized():
        own = HydraConfig.get()
        records = {"config": config, "hydra": OmegaConf.create({"hydra": own}), "overrides": own.overrides.task}
        for name, record in records.items():
            write_text(run.directory / HYDRAS / f"{name}.yaml", OmegaConf.to_yaml(record))


def content_of(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain data, its references resolved."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def build_loggers(config: DictConfig, run: RunDirectory, **facts: Any) -> list[Mirror]:
    """Build the configured loggers of this run, which write below its directory and cannot fail it.

    `facts` are kept beside the settings, such as the training runs that were evaluated.
    """
    made = []
    for name, node in (config.logger or {}).items():
        made.append(Mirror(str(name), str(run.directory), functools.partial(_open_logger, node, f"logger.{name}", run)))
    for logger in made:
        logger.log_hyperparams(content_of(config) | {"record": dict(run.record), **facts})
    return made


def _open_logger(node: DictConfig, name: str, run: RunDirectory) -> Any:
    """Open a logger. Ours also get the record of the run, after Hydra, which would read the braces in it."""
    directory = str(run.directory)
    if not str(node.get("_target_")).startswith(OUR_LOGGERS):
        return instantiate(node, name, save_dir=directory)
    return instantiate(node, name, save_dir=directory, _partial_=True)(record=run.record)


def finished_before(config: DictConfig, **content: Any) -> Path | None:
    """Return the run that this sweep, when it was started before, finished with these settings and this content."""
    found = job_finished_before(_digest(config, **content))
    if found is not None:
        say(f"Finished before: {found}")
    return found


def check_optimized(config: DictConfig, names: Collection[str]) -> None:
    """Raise UserError if the metric that a sweep optimises is none of `names`."""
    name = config.get("optimized_metric")
    if name is not None and name not in names:
        near = difflib.get_close_matches(name, names, n=4, cutoff=0) if len(names) > 12 else sorted(names)
        raise UserError(f"There is no metric {name!r} to optimise. Choose another, such as {', '.join(near)}.")


def optimized(config: DictConfig, metrics: dict[str, float]) -> float | None:
    """Return the metric that a sweep optimises."""
    check_optimized(config, metrics)
    name = config.get("optimized_metric")
    return None if name is None else metrics[name]


def _digest(config: DictConfig, **more: Any) -> str:
    """Return a digest of what makes two commands the same run."""
    content = content_of(config)
    if "compute" in content:
        more |= {name: content["compute"][name] for name in ("step", "reference_precision")}
        content["data"]["loader"].pop("token_budget")
    return fingerprint({key: value for key, value in content.items() if key not in INCIDENTAL} | more)
