"""Tune the ω of systems on a benchmark, store it, and report it on other tasks.

    cptlab omega run=null backbone=kata_lm benchmark=kata
    cptlab omega system=[tuned] decoding=spa 'decoding.negative.spans=[nl,tests]'
    cptlab evaluate decoding=spa decoding.omega=tuned            (uses what was stored)

A killed command goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from cptlab.analysis.omega.search import omega_grid
from cptlab.analysis.omega.tuning import Draw, check_metric, sentences, tune
from cptlab.commands.shared.common import (
    ROOT,
    TOO_LONG,
    begin,
    build_judge,
    check_sandbox,
    finished_before,
    say,
    say_left_out,
    write_config,
)
from cptlab.commands.shared.systems import build_backbone, choose_systems, shared_setting
from cptlab.errors import UserError
from cptlab.process.ends import exit_with
from cptlab.records import Task
from cptlab.reporting.omega_curve import print_curve
from cptlab.reporting.omega_report import make_omega_report
from cptlab.reporting.omega_sweep import read_curve
from cptlab.settings.entry import hydra_command
from cptlab.settings.instantiate import instantiate
from cptlab.settings.output_directory import check_directory
from cptlab.settings.run_record import read_training
from cptlab.storage.atomic import write_json
from cptlab.storage.jsonl import write_jsonl
from cptlab.systems import tuned_omega as store
from cptlab.systems.decoding import build_decoding
from cptlab.tracking.provenance import collect_provenance

if TYPE_CHECKING:
    from cptlab.systems.judge import Judge
    from cptlab.systems.loading import LoadedSystem


def tune_omega(config: DictConfig, fresh: Path) -> Path:
    """Tune and store the ω of every system; return the run directory with omega.json, omega_curve.* and omega_test.csv."""
    started = time.monotonic()
    from cptlab.systems.loading import check_system, leave_out_long, load_system

    # 1. What is tuned. Every mistake in it is found here, before any work.
    judge = build_judge(config)
    grid = check(config, judge.scorer.name)
    decoding = build_decoding(config.decoding, tune_omega=True)
    chosen = choose_systems(config, tune_omega=True)
    benchmark = instantiate(shared_setting(config, chosen, "benchmark"), "benchmark")
    validation = benchmark.split(config.validation_split, config.validation_tasks)
    test = benchmark.split(config.test_split, config.test_tasks)
    in_both = store.tuned_on(store.contents(validation), test)
    test = [task for task in test if task not in in_both]
    if not test:
        raise UserError(
            f"Every task of split {config.test_split} chose ω, so none is left to report it on. Give another "
            "test_split or validation_split."
        )
    backbone = build_backbone(config, chosen)
    systems = with_omega_to_tune([load_system(system, backbone, decoding) for system in chosen])
    of = len(validation) + len(test)
    (validation, test), left_out = leave_out_long(systems, validation, test)
    say_left_out(left_out, of)
    for system in systems:
        check_system(system, [*validation, *test], config.n)
    sandbox = check_sandbox(config)
    say(
        f"ω is tuned on {len(validation)} tasks of {benchmark.name} and reported on {len(test)} others"
        + (f" ({len(in_both)} tasks that are in both splits are left out of these)." if in_both else ".")
    )

    # 2. The run directory.
    runs = {system.name: system.run for system in chosen if system.run is not None}
    made_of = {
        "backbone": backbone.fingerprint,
        "benchmark": benchmark.fingerprint(),
        "adapters": {system.name: system.adapter_digest for system in systems},
    }
    if finished := finished_before(config, runs=runs, made_of=made_of):
        return finished
    run = begin(config, fresh, "omega", runs, runs=runs, made_of=made_of)
    write_config(config, run)

    # 3. The search, system by system.
    cache = Path(config.paths.cache)
    found: dict[str, Any] = {}
    for system in systems:
        draw = draw_with(system, config.n, judge, config.seed, run.directory / system.name, test)
        tuned = tune(
            draw,
            validation,
            test,
            grid,
            config.metric,
            config.method,
            config.probes,
            config.seed,
            lambda text, name=system.name: say(f"{name}: {text}"),
        )
        record = tuned.record() | {"sentences": sentences(system.name, tuned, config.metric)}
        provenance = collect_provenance(
            ROOT, run=str(run.directory), metric=config.metric, n=config.n, seed=config.seed
        )
        file = store.store(
            cache,
            store.omega_setting(system, backbone, benchmark),
            validation,
            tuned.search.best,
            **{name: record[name] for name in record if name not in ("omega", "per_task")},
            **provenance,
        )
        found[system.name] = record | {"stored": str(file)}

    # 4. The curve and its report.
    facts: dict[str, Any] = {
        "run": run.record,
        "about": f"{backbone.name} on {benchmark.name}, split {config.validation_split}, n = {config.n}",
        "metrics": [config.metric, f"{judge.scorer.name}_mean" if "pass@" in config.metric else "pass@1"],
        "metric": config.metric,
        "scorer": judge.scorer.identity(),
        "benchmark": benchmark.name,
        "benchmark_fingerprint": benchmark.fingerprint(),
        "n": config.n,
        "seed": config.seed,
        "backbone": backbone.name,
        "backbone_fingerprint": backbone.fingerprint,
        "training_run": next(iter(runs.values()), None),
        "training": {name: read_training(directory) for name, directory in runs.items()},
        "parts": {system.name: system.parts() | {"run": system.run} for system in chosen},
        "sandbox": sandbox,
        "validation_tasks": [task.id for task in validation],
        "test_tasks": [task.id for task in test],
        "left_out": {TOO_LONG: left_out},
        "in_both_and_left_out": [task.id for task in in_both],
    }
    write_jsonl(run.directory / "tasks.jsonl", [*validation, *test])
    provenance = collect_provenance(ROOT, wall_seconds=round(time.monotonic() - started, 1), resumed=run.resumed)
    write_json(run.directory / "omega.json", {"systems": found, **facts, **provenance})
    curve = read_curve([run.directory])
    page = make_omega_report(run.directory, curve)
    run.finish()
    print_curve(curve)
    for system, record in found.items():
        print(f"{system}: ω = {record['omega']:g} stored in {record['stored']}")
    print(f"Run directory: {run.directory}\nReport: {page}")
    return run.directory


def check(config: DictConfig, scorer: str) -> tuple[float, ...]:
    """Return the grid of ω. Raises UserError for a setting that cannot be, before anything is loaded."""
    check_metric(config.metric, config.n, scorer)
    check_directory(Path(config.paths.cache) / store.FOLDER, "paths.cache")
    if not config.decoding.get("guidance"):
        raise UserError("This decoding has no guidance, so it has no ω. Use decoding=spa or another with guidance.")
    return omega_grid(config.low, config.high, config.step)


def with_omega_to_tune(systems: list[LoadedSystem]) -> list[LoadedSystem]:
    """Leave out the systems without a second stream, which is said. Raises UserError where none is left."""
    left = [system.name for system in systems if system.decoding.guidance is None]
    if len(left) == len(systems):
        raise UserError(
            f"There is no ω to tune: {', '.join(left)} has no second stream, or one that needs a prefix. Give run=<a "
            "training run> and system=[tuned], or another decoding/negative."
        )
    if left:
        say(f"Left out, for they have no ω here: {', '.join(left)}.")
    return [system for system in systems if system.name not in left]


def draw_with(system: LoadedSystem, n: int, judge: Judge, seed: int, directory: Path, test: Sequence[Task]) -> Draw:
    """Return how the search gets programs of one ω judged. Those for the tasks `test` are written to `directory`."""
    from cptlab.systems.samples import sample_and_judge

    def draw(tasks: Sequence[Task], omega: float) -> Any:
        named = replace(system, name=f"{system.name}, ω = {omega:g}", decoding=system.decoding.with_omega(omega))
        judged = sample_and_judge(named, tasks, n, judge, seed=seed)
        if tasks is test:
            judged.write(directory / f"omega_{omega:g}")
        return judged.results()

    return draw


main = hydra_command("omega", tune_omega)

if __name__ == "__main__":
    exit_with(main())
