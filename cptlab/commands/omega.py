"""Tune ω for a model and a benchmark, store it, and report it on other tasks.

    python -m cptlab.analysis.omega run=null backbone=kata_lm benchmark=kata
    python -m cptlab.analysis.omega run=latest decoding=spa 'decoding.negative.spans=[nl,tests]'
    python evaluate.py decoding=spa decoding.omega=tuned            (uses what was stored)

A thin entry like evaluate.py; it needs the clone's conf/ folder. A killed command goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cptlab.analysis.omega.search import METHODS, omega_grid
from cptlab.analysis.omega.tuning import Draw, check_metric, sentences, tune
from cptlab.commands.common import ROOT, begin, sandbox_of, say
from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.reporting.omega_curve import make_omega_report, print_curve
from cptlab.reporting.omega_sweep import read_curve
from cptlab.settings.entry import entry, job
from cptlab.settings.instantiate import instantiate
from cptlab.storage.atomic import write_json
from cptlab.storage.jsonl import write_jsonl
from cptlab.storage.run_directory import CONFIG_FILE, training_run
from cptlab.systems import tuned_omega as store
from cptlab.systems.guidance import strategy_of
from cptlab.tracking.provenance import collect_provenance

CONF = Path(__file__).resolve().parents[3] / "conf"


def tune_omega(config: DictConfig, fresh: Path) -> Path:
    """Every system's ω stored in the cache; the run directory with omega.json, omega_curve.* and omega_test.csv."""
    started = time.monotonic()
    from cptlab.adapters import load_prefix

    grid = check(config)
    trained = training_run(config.run, Path(config.paths.logs))
    sandbox = sandbox_of(config)
    source = OmegaConf.load(trained / CONFIG_FILE) if trained else config
    benchmark = instantiate(config.get("benchmark") or source.benchmark, "benchmark")
    validation = benchmark.split(config.validation_split, config.validation_tasks)
    test = benchmark.split(config.test_split, config.test_tasks)
    node = (config.get("backbone") or source.backbone).copy()
    if config.device is not None:
        node.device = config.device
    backbone = instantiate(node, "backbone")
    guidance = instantiate(config.decoding.guidance, "decoding.guidance", omega=2.0)  # any but 1
    sampling = instantiate(config.decoding.sampling, "decoding.sampling")
    strategy = strategy_of(config)
    systems: dict[str, Any] = {"base": None}
    if trained:
        systems["tuned"] = load_prefix(trained / "prefix", backbone.shape).to(backbone.device)
    systems = choose_systems(systems, config.systems, guidance)
    both = store.tuned_on(store.contents(validation), test)
    test = [task for task in test if task not in both]
    if not test:
        raise UserError(
            f"Every task of split {config.test_split} chose ω, so none is left to report it on. Give another "
            "test_split or validation_split."
        )
    say(
        f"ω is tuned on {len(validation)} tasks of {benchmark.name} and reported on {len(test)} others"
        + (f" ({len(both)} tasks that are in both splits are left out of these)." if both else ".")
    )
    run = begin(config, fresh, "omega", run=str(trained))
    OmegaConf.save(config, run.directory / CONFIG_FILE, resolve=True)
    found: dict[str, Any] = {}
    facts: dict[str, Any] = {
        "about": f"{backbone.name} on {benchmark.name}, split {config.validation_split}, n = {config.n}",
        "metrics": [config.metric, "pylint_mean" if "pass@" in config.metric else "pass@1"], "metric": config.metric,
        "benchmark": benchmark.name, "benchmark_fingerprint": benchmark.fingerprint(), "n": config.n,
        "seed": config.seed, "backbone": backbone.name, "backbone_fingerprint": backbone.fingerprint,
        "training_run": str(trained) if trained else None, "sandbox": sandbox,
        "validation_tasks": [task.id for task in validation], "test_tasks": [task.id for task in test],
        "in_both_and_left_out": [task.id for task in both],
    }  # fmt: skip
    for system, prefix in systems.items():
        draw = draw_with(config, backbone, prefix, guidance, sampling, strategy, run.directory / system, test)
        tuned = tune(
            draw,
            validation,
            test,
            grid,
            config.metric,
            config.method,
            config.probes,
            config.seed,
            lambda text, system=system: say(f"{system}: {text}"),
        )
        record = tuned.record() | {"sentences": sentences(system, tuned, config.metric)}
        setting = store.find_setting(backbone, prefix, benchmark, guidance, sampling, strategy)
        provenance = collect_provenance(
            ROOT, run=str(run.directory), metric=config.metric, n=config.n, seed=config.seed
        )
        file = store.store(
            Path(config.paths.cache),
            setting,
            validation,
            tuned.search.best,
            **{name: record[name] for name in record if name not in ("omega", "per_task")},
            **provenance,
        )
        found[system] = record | {"stored": str(file)}
    write_jsonl(run.directory / "tasks.jsonl", [*validation, *test])
    provenance = collect_provenance(
        ROOT, wall_seconds=round(time.monotonic() - started, 1), resumed=run.resumed
    )
    write_json(run.directory / "omega.json", {"systems": found, **facts, **provenance})
    curve = read_curve([run.directory])
    page = make_omega_report([run.directory], curve)
    run.finish()
    print_curve(curve)
    for system, record in found.items():
        print(f"{system}: ω = {record['omega']:g} stored in {record['stored']}")
    print(f"Run directory: {run.directory}\nReport: {page}")
    return run.directory


def check(config: DictConfig) -> tuple[float, ...]:
    """The grid; UserError for a setting that cannot be, before anything is loaded."""
    for name in ("n", "validation_tasks", "test_tasks"):
        number = config[name]
        if number is not None and (type(number) is not int or number < 1):
            raise UserError(f"{name}={number} cannot be: it must be a whole number from 1 up. Correct that value.")
    if type(config.probes) is not int or config.probes < 0:
        raise UserError(f"probes={config.probes} cannot be: it must be a whole number from 0 up. Correct that value.")
    if config.method not in METHODS:
        raise UserError(f"There is no method={config.method}. Choose from {', '.join(METHODS)}.")
    check_metric(str(config.metric), config.n)
    if not config.decoding.get("guidance"):
        raise UserError("This decoding has no guidance, so it has no ω. Use decoding=spa or another with guidance.")
    if not all(isinstance(config[name], (int, float)) for name in ("low", "high", "step")):
        raise UserError("low, high and step of the grid of ω must be numbers. Correct them.")
    return omega_grid(config.low, config.high, config.step)


def choose_systems(systems: dict[str, Any], asked: Sequence[str] | None, guidance: Any) -> dict[str, Any]:
    """Those asked for; all if none is named, but without the base model where the guidance needs a prefix."""
    if asked is None:
        needs_prefix = getattr(guidance.negative, "needs_prefix", False) and "tuned" in systems
        return {name: prefix for name, prefix in systems.items() if prefix is not None or not needs_prefix}
    unknown = [name for name in asked if name not in systems]
    if unknown or not asked:
        raise UserError(
            f"systems={list(asked)} cannot be. Choose from {', '.join(systems)}"
            + ("." if "tuned" in systems else "; tuned needs run=<training run>.")
        )
    return {name: systems[name] for name in asked}


def draw_with(
    config: DictConfig,
    backbone: Any,
    prefix: Any,
    guidance: Any,
    sampling: Any,
    strategy: Any,
    directory: Path,
    test: Sequence[Task],
) -> Draw:
    """How the search gets programs of one ω judged. What was made for the tasks reported is kept in `directory`."""
    from cptlab.systems.samples import sample_and_judge

    def draw(tasks: Sequence[Task], omega: float) -> Any:
        judged = sample_and_judge(
            backbone, tasks, config.n, sampling, cache=Path(config.paths.cache), seed=config.seed, prefix=prefix,
            guidance=store.with_omega(guidance, omega), strategy=strategy, token_budget=config.decoding.token_budget,
            extra_disabled=config.extra_disabled, workers=config.workers, sandbox=config.sandbox,
            title=f"{directory.name}, ω = {omega:g}",
        )  # fmt: skip
        if tasks is test:
            judged.write(directory / f"omega_{omega:g}")
        return judged.results()

    return draw


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="omega")
def main(config: DictConfig) -> None:
    fresh = Path(HydraConfig.get().runtime.output_dir)
    job(lambda config: tune_omega(config, fresh), config)


if __name__ == "__main__":
    entry(main)
