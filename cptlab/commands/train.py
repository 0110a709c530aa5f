"""Training as one step: pairs, both stages, the adapter in the format that other tools read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.shared.build_pairs import pairs_to_train_on
from cptlab.commands.shared.common import (
    METRICS_FILE,
    ROOT,
    STATISTICS_FILE,
    TOO_LONG,
    begin,
    build_loggers,
    finished_before,
    optimized,
    say,
    say_left_out,
    write_config,
)
from cptlab.commands.shared.estimate import print_estimate, say_estimate
from cptlab.commands.shared.outcomes import training_outcome
from cptlab.commands.shared.preference import held_out, preferences
from cptlab.errors import UserError
from cptlab.process.ends import exit_with
from cptlab.progress import is_main_process
from cptlab.settings.entry import hydra_command
from cptlab.settings.instantiate import instantiate
from cptlab.storage.atomic import write_json
from cptlab.storage.run_directory import discard
from cptlab.tracking.mirrors import check_mirrors, closed_at_the_end
from cptlab.tracking.provenance import collect_provenance

OPPOSITE = 1_000_003  # added to the seed of the second adapter, where an objective has one


def train(config: DictConfig, fresh: Path) -> float | None:
    """Build the pairs, train both stages, and export the adapter to the run directory, in the directory of its kind.

    Returns the value of `optimized_metric`.

    With `estimate`: what that would take, and nothing else.
    """
    started = time.monotonic()
    if config.estimate:
        if is_main_process():
            print_estimate(config, _adapters)
        discard(fresh)
        return None
    check_mirrors(config.logger, config.tags)
    from cptlab.reporting.curves import last_epochs
    from cptlab.training import ShardedLayers, choose_step, fastest_step, make_trainer, train_stages

    compute, stages = instantiate(config.compute, "compute"), instantiate(config.stages, "stages")
    objective = instantiate(config.objective, "objective")
    backbone = instantiate(config.backbone, "backbone")
    adapters = _adapters(config, backbone, objective)
    adapter, opposite = adapters[0], adapters[1] if len(adapters) == 2 else None
    callbacks = [instantiate(node, f"callbacks.{name}") for name, node in (config.callbacks or {}).items()]
    trainer = instantiate(config.trainer, "trainer")
    # a machine without the devices is found now, not after the pairs
    strategy = make_trainer(trainer, logger=False).strategy
    sharded = isinstance(strategy, ShardedLayers)
    if sharded:
        compute = _for_sharded_layers(config, backbone, adapters, compute)
    content: dict[str, Any] = {"backbone": backbone.fingerprint, "prompts": backbone.prompt_form}
    if mine := config.data.pairs_file:  # with what a user's file holds, so that a corrected one is a new run
        content["pairs"] = hashlib.sha256(_bytes(mine)).hexdigest()
    elif "path" in config.benchmark:
        content["benchmark"] = instantiate(config.benchmark, "benchmark").fingerprint()
    if config.adapter.get("start") or config.adapter.get("start_text"):
        content["start"] = adapter.digest()
    if finished := finished_before(config, **content):
        return optimized(config, _read_json(finished / METRICS_FILE)["metrics"])
    run = begin(config, fresh, "train", **content)
    main_process = is_main_process()
    if main_process:
        write_config(config, run)
    if adapter.note:
        say(adapter.note)
    pairs_file = pairs_to_train_on(config, backbone)
    statistics = _read_json(pairs_file.with_name(STATISTICS_FILE)) if config.data.pairs_file is None else {}
    data = instantiate(
        config.data.loader,
        "data.loader",
        pairs_file,
        backbone,
        adapter_positions=adapter.positions,
        _partial_=False,
    )
    say_left_out(data.left_out, len(data.left_out) + sum(map(len, data.splits.values())), "pairs")
    method = choose_step(backbone, compute, adapters, strategy.root_device)
    if method.reason:
        say(f"The plain step is used: {method.reason}.")
    parts = backbone, adapters, data, objective
    estimate = say_estimate(config, *parts, method=method, compute=compute) if main_process else None
    if method.name == "fast" and compute.reference == "disk":
        with method.compiling():
            data.keep_reference(
                Path(config.paths.cache),
                backbone,
                objective,
                precision=compute.reference_precision,
                first_stage=stages.first_epochs > 0,
                say=say if main_process else _say_what_is_computed,
            )
    kept = run.directory / "training"
    if not sharded:  # where all processes must go the same way
        method = fastest_step(method, backbone, adapters, objective, lambda: data.longest_batch(objective), kept)
    loggers = build_loggers(config, run) if main_process else []
    begun = time.monotonic()
    with closed_at_the_end(loggers):
        try:
            train_stages(
                backbone,
                adapter,
                data,
                objective,
                stages,
                directory=kept,
                opposite=opposite,
                method=method,
                trainer=trainer,
                callbacks=callbacks,
                loggers=loggers,
            )
        except UserError as error:
            again = f" To start this run afresh, delete {run.directory}." if run.resumed else ""
            raise UserError(f"{error}{again}") from None
        if not main_process:
            return None
        extra = {"run": run.directory.name, "backbone": backbone.fingerprint}
        for one, name in zip(adapters, (adapter.kind, f"{adapter.kind}_worse")):
            one.export(run.directory / name, backbone, extra=extra)
        metrics = last_epochs(run.directory / "training")
        if str(config.optimized_metric).startswith("preference/"):
            metrics |= _preference(config, backbone, adapter, pairs_file)
        facts = collect_provenance(
            ROOT,
            run=run.record,
            seed=config.seed,
            backbone=backbone.fingerprint,
            pairs=str(pairs_file),
            pair_statistics=statistics,
            left_out={TOO_LONG: data.left_out},
            adapter=adapter.kind,
            trainable_parameters=sum(p.numel() for one in adapters for p in one.parameters()),
            adapter_numbers=sum(tensor.numel() for tensor in adapter.tensors()),
            epochs=stages.first_epochs + stages.second_epochs,
            training_seconds=None if run.resumed else round(time.monotonic() - begun, 1),
            wall_seconds=round(time.monotonic() - started, 1),
            resumed=run.resumed,
            **method.facts(),
            estimate=estimate,
        )
        write_json(run.directory / METRICS_FILE, {"metrics": metrics, **facts})
        for logger in loggers:
            logger.log_outcome(training_outcome(run, metrics, pairs_file))
    run.finish()
    print(f"{adapter.kind.capitalize()}: {run.directory / adapter.kind}")
    print(f"Evaluate it with: cptlab evaluate run={run.directory}")
    return optimized(config, metrics)


def _preference(config: DictConfig, backbone: Any, adapter: Any, pairs_file: Path) -> dict[str, float]:
    """Return what the trained model prefers on the validation pairs, as metrics `preference/…`."""
    from cptlab.analysis.preference.summary import metrics

    policies = {"tuned": adapter.eval().policy(backbone)}
    found = held_out(pairs_file, backbone, "validation")
    return metrics(preferences(config, backbone, policies, found, adapter.positions)[0]["tuned"], "preference")


def _for_sharded_layers(config: DictConfig, backbone: Any, adapters: list[Any], compute: Any) -> Any:
    """Return `compute` for layers that are shared out over processes. Raises UserError for what such layers cannot do."""
    from cptlab.training import check_sharded

    check_sharded(backbone, adapters, compute.compile)
    if str(config.optimized_metric).startswith("preference/"):
        raise UserError(
            f"optimized_metric={config.optimized_metric} is measured by one process alone, which layers shared out over "
            "several cannot do. Choose a metric of the validation."
        )
    if compute.reference == "disk":  # which a process would compute alone
        say("The reference is computed at every step: the layers are shared out over processes.")
    return dataclasses.replace(compute, reference="recompute")


def _say_what_is_computed(text: str) -> None:
    """For a process that is not the first, and says no more than it must: which of them computes is a matter of chance."""
    if "comput" in text:
        print(text, file=sys.stderr, flush=True)


def _adapters(config: DictConfig, backbone: Any, objective: Any) -> list[Any]:
    """Make what is trained: an adapter for each policy of the objective."""
    seeds = [config.seed, config.seed + OPPOSITE][: objective.policies]
    made = [instantiate(config.adapter, "adapter", backbone, seed=seed, _partial_=False) for seed in seeds]
    return [adapter.to(backbone.device) for adapter in made]


def _bytes(path: str) -> bytes:
    if not Path(path).is_file():
        raise UserError(
            f"There is no pairs file {path}. Check the path, or leave data.pairs_file=null to have them built."
        )
    return Path(path).read_bytes()


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


main = hydra_command("train", train)

if __name__ == "__main__":
    exit_with(main())
