"""Train a LoRA by reinforcement learning (GRPO, through TRL), to compare with training on pairs.

    cptlab grpo
    cptlab evaluate run=logs/grpo/runs/<time>

The rewards are the tests of the tasks and the quality score. The run directory is that of a training run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.shared.common import (
    METRICS_FILE,
    ROOT,
    TOO_LONG,
    begin,
    build_judge,
    build_loggers,
    check_sandbox,
    finished_before,
    say,
    say_left_out,
    write_config,
)
from cptlab.errors import UserError
from cptlab.process.ends import exit_with
from cptlab.settings.entry import hydra_command
from cptlab.settings.instantiate import instantiate
from cptlab.storage.atomic import write_json, write_text
from cptlab.storage.jsonl import dump_line
from cptlab.tracking.mirrors import check_mirrors, closed_at_the_end
from cptlab.tracking.outcome import Outcome
from cptlab.tracking.provenance import collect_provenance

HISTORY = "history.jsonl"  # what TRL logged, a line for each step
AVERAGED = 10  # steps at the end whose means are the metrics


def grpo(config: DictConfig, fresh: Path) -> None:
    """Train the adapter and export it to the run directory, as `train` does."""
    started = time.monotonic()
    check_mirrors(config.logger, config.tags)
    from cptlab.systems.decoding import build_decoding
    from cptlab.systems.loading import LoadedSystem, leave_out_long
    from cptlab.training.grpo import check_trl, train_grpo

    check_trl()
    options, decoding = instantiate(config.grpo, "grpo"), build_decoding(config.decoding)
    other = decoding.guidance or decoding.steering or decoding.strategy or decoding.second_try
    if other or decoding.sampling.greedy or decoding.engine != "cptlab":
        raise UserError(
            "GRPO learns from plain random samples of cptlab's engine. Use decoding=ancestral or decoding=paper here."
        )
    backbone = instantiate(config.backbone, "backbone")
    adapter = instantiate(config.adapter, "adapter", backbone, seed=config.seed, _partial_=False)
    if adapter.kind != "lora":
        raise UserError(f"GRPO trains a LoRA, and the adapter is of kind {adapter.kind}. Use adapter=lora.")
    judge, benchmark = build_judge(config), instantiate(config.benchmark, "benchmark")
    every = benchmark.split("train", config.train_tasks)
    content: dict[str, Any] = {
        "backbone": backbone.fingerprint,
        "prompts": backbone.prompt_form,
        "benchmark": benchmark.fingerprint(),
        "scorer": judge.scorer.identity(),
    }
    if finished_before(config, **content):
        return
    check_sandbox(config)
    system = LoadedSystem("grpo", adapter.policy(backbone), decoding)
    (tasks,), left_out = leave_out_long([system], every)
    say_left_out(left_out, len(every))
    if len(tasks) < options.tasks_per_step:
        raise UserError(
            f"There are {len(tasks)} tasks to learn from, fewer than the {options.tasks_per_step} of a step. "
            "Lower grpo.tasks_per_step, or take more tasks."
        )
    run = begin(config, fresh, "grpo", **content)
    write_config(config, run)
    programs = options.steps * options.tasks_per_step * options.n
    say(f"GRPO: {options.steps} steps, {programs} programs of {len(tasks)} tasks")
    loggers = build_loggers(config, run)
    with closed_at_the_end(loggers):
        history = train_grpo(
            adapter,
            system,
            tasks,
            judge,
            options,
            directory=run.directory / "training",
            seed=config.seed,
            report=lambda metrics, step: [one.log_metrics(_numbers(metrics), step) for one in loggers],
        )
        adapter.export(
            run.directory / adapter.kind, backbone, extra={"run": run.directory.name, "backbone": backbone.fingerprint}
        )
        write_text(run.directory / HISTORY, "".join(dump_line(row) + "\n" for row in history))
        metrics = _means(history[-AVERAGED:])
        facts = collect_provenance(
            ROOT,
            run=run.record,
            seed=config.seed,
            backbone=backbone.fingerprint,
            left_out={TOO_LONG: left_out},
            adapter=adapter.kind,
            trainable_parameters=sum(p.numel() for p in adapter.parameters()),
            tasks=len(tasks),
            programs=programs,
            wall_seconds=round(time.monotonic() - started, 1),
            resumed=run.resumed,
        )
        write_json(run.directory / METRICS_FILE, {"metrics": metrics, **facts})
        for logger in loggers:
            logger.log_outcome(Outcome(metrics=metrics))
    run.finish()
    shown = ", ".join(f"{name.split('/')[-1]} {value:.3f}" for name, value in metrics.items())
    print(f"Mean of the last {min(AVERAGED, len(history))} steps: {shown}")
    print(f"LoRA: {run.directory / adapter.kind}")
    print(f"Evaluate it with: cptlab evaluate run={run.directory}")


def _numbers(metrics: Any) -> dict[str, float]:
    return {f"grpo/{name}": float(value) for name, value in metrics.items() if isinstance(value, (int, float))}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean reward of the last steps, and of its two parts."""
    names = {"reward": "reward", "rewards/passed/mean": "passed", "rewards/quality/mean": "quality"}
    return {f"grpo/{short}": sum(row[name] for row in rows) / len(rows) for name, short in names.items()}


main = hydra_command("grpo", grpo)

if __name__ == "__main__":
    exit_with(main())
