"""What the pipeline's steps share: what they say, their run directories, loggers and metric."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab import settings
from cptlab.errors import UserError
from cptlab.storage.digests import fingerprint
from cptlab.storage.run_directory import RunDirectory, open_run

ROOT = Path(__file__).resolve().parents[2]
PAIRS_FILE, STATISTICS_FILE, METRICS_FILE = "pairs.jsonl", "statistics.json", "metrics.json"
# what does not change a result, and so does not make a run another run
INCIDENTAL = (
    "paths",
    "logger",
    "print_config",
    "tags",
    "callbacks",
    "task_name",
    "workers",
    "optimized_metric",
    "compute",
    "estimate",
)


def say(text: str) -> None:
    """A line for the user, from the main process alone."""
    if settings.is_main_process():
        print(text, file=sys.stderr, flush=True)


def sandbox_of(config: DictConfig) -> dict[str, Any]:
    """The sandbox that programs will run in, said to the user. UserError if it is weaker than `sandbox` asks for."""
    from cptlab.judging.sandbox.sandbox import Sandbox

    with Sandbox(workers=1, at_least=config.sandbox) as sandbox:
        found = {"level": sandbox.level, "protections": sandbox.protections}
    say(f"Sandbox: {found['level']} (asked for: {config.sandbox} or stronger)")
    return found


def begin(config: DictConfig, fresh: Path, task: str, **content: Any) -> RunDirectory:
    """The run of these settings and this content, begun or gone on with."""
    run = open_run(fresh, Path(config.paths.logs) / task, _digest(config, **content))
    say(f"{'Going on with the unfinished run' if run.resumed else 'Run directory:'} {run.directory}")
    return run


def loggers_of(config: DictConfig, run: RunDirectory, job_type: str) -> list[Any]:
    """The configured loggers of this run; they write below its directory."""
    made = []
    for name, node in (config.logger or {}).items():
        extra = {"job_type": job_type, "tags": list(config.tags)} if name == "wandb" else {}
        made.append(settings.build(node, f"logger.{name}", save_dir=str(run.directory), **extra))
    for logger in made:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    return made


def optimized(config: DictConfig, metrics: dict[str, float]) -> float | None:
    """What a sweep optimises."""
    name = config.get("optimized_metric")
    if name is None:
        return None
    if name not in metrics:
        raise UserError(f"There is no metric {name!r} to optimise. Choose one of: {', '.join(sorted(metrics))}.")
    return metrics[name]


def _digest(config: DictConfig, **more: Any) -> str:
    """What makes two commands the same run."""
    content = OmegaConf.to_container(config, resolve=True)
    if "compute" in content:
        more["reference_precision"] = content["compute"]["reference_precision"]
        content["data"]["loader"].pop("token_budget")
    return fingerprint({key: value for key, value in content.items() if key not in INCIDENTAL} | more)
