"""Evaluation as one step: the base model against the tuned one, or programs that other tools made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab.commands.common import METRICS_FILE, ROOT, begin, loggers_of, optimized, sandbox_of, say
from cptlab.settings.instantiate import instantiate
from cptlab.storage.atomic import write_json
from cptlab.storage.jsonl import write_jsonl
from cptlab.storage.run_directory import CONFIG_FILE, RunDirectory, training_run
from cptlab.systems.guidance import described, guidance_of, guidances_of_systems, strategy_of
from cptlab.tracking.loggers import finished_at_the_end, log_evaluation, mirror_without_lightning
from cptlab.tracking.provenance import collect_provenance


def evaluate(config: DictConfig, fresh: Path) -> float | None:
    """The base model against the tuned one on held-out tasks, or programs that other tools made (`completions`).

    Tables, figures and report in the run directory; returns the value of `optimized_metric`.
    """
    if config.completions is not None:
        return _evaluate_given(config, fresh)
    started = time.monotonic()
    from cptlab.adapters import load_prefix
    from cptlab.metrics.summary import allowed_ks, compare, summarise
    from cptlab.systems.samples import Judged, sample_and_judge

    trained = training_run(config.run, Path(config.paths.logs))
    sandbox = sandbox_of(config)
    source = OmegaConf.load(trained / CONFIG_FILE) if trained else config
    benchmark = instantiate(config.get("benchmark") or source.benchmark, "benchmark")
    node = (config.get("backbone") or source.backbone).copy()
    if config.device is not None:
        node.device = config.device
    backbone = instantiate(node, "backbone")
    tasks = benchmark.split(config.split, config.limit)
    sampling = instantiate(config.decoding.sampling, "decoding.sampling")
    strategy = strategy_of(config)
    guidance_of(config, trained is not None)
    systems: dict[str, Any] = {"base": None}
    if trained:
        systems["tuned"] = load_prefix(trained / "prefix", backbone.shape).to(backbone.device)
    guidances = guidances_of_systems(config, backbone, systems, benchmark, tasks, sampling, strategy)
    if guidances["base"] is None and guidances.get("tuned") is not None:
        say("base: without a prefix this second stream is the first one, so it is decoded plainly.")
    omegas = {system: guidance.omega for system, guidance in guidances.items() if guidance}
    run = begin(config, fresh, "evaluate", run=str(trained), omegas=omegas)
    OmegaConf.save(config, run.directory / CONFIG_FILE, resolve=True)
    write_jsonl(run.directory / "tasks.jsonl", tasks)
    ks = allowed_ks({task.id: config.n for task in tasks}, config.ks)
    results: dict[str, Any] = {}
    judged: dict[str, Judged] = {}
    for system, prefix in systems.items():
        judged[system] = sample_and_judge(
            backbone, tasks, config.n, sampling, cache=Path(config.paths.cache), seed=config.seed, prefix=prefix,
            guidance=guidances[system], strategy=strategy, token_budget=config.decoding.token_budget,
            extra_disabled=config.extra_disabled, workers=config.workers, sandbox=config.sandbox, title=system,
        )
        judged[system].write(run.directory / system)
        results[system] = summarise(tasks, *judged[system].results(), ks=ks)
    differences = compare(tasks, judged["base"].results(), judged["tuned"].results(), ks=ks) if trained else {}
    facts = collect_provenance(
        ROOT, seed=config.seed, n=config.n, split=config.split, benchmark=benchmark.name,
        benchmark_fingerprint=benchmark.fingerprint(), backbone=backbone.name, backbone_fingerprint=backbone.fingerprint,
        training_run=str(trained) if trained else None, sandbox=sandbox, decoding=described(guidances, strategy),
        wall_seconds=round(time.monotonic() - started, 1), resumed=run.resumed,
    )
    metrics, report = _report(run, results, differences, facts)
    loggers = loggers_of(config, run, "evaluate")
    with finished_at_the_end(loggers):
        log_evaluation(loggers, metrics)
    print(f"\nRun directory: {run.directory}\nReport: {report}")
    return optimized(config, metrics)


def _evaluate_given(config: DictConfig, fresh: Path) -> float | None:
    """Programs in a file, judged as a model's own are: system `given`, and `base` for those of `against`. No model, no
    torch. The figures are over the tasks that have rows (in both files)."""
    started = time.monotonic()
    from cptlab.metrics.summary import allowed_ks, compare, summarise
    from cptlab.systems import completions as given

    benchmark = instantiate(config.benchmark, "benchmark")
    paths = ({"base": config.against} if config.against is not None else {}) | {"given": config.completions}
    files = {system: given.check_file(path, benchmark.tasks) for system, path in paths.items()}
    present = [task for task in benchmark.tasks if any(task.id in file.counts for file in files.values())]
    shared = given.shared_tasks(present, list(files.values()))
    ks = allowed_ks({task.id: min(file.counts[task.id] for file in files.values()) for task in shared}, config.ks)
    for file in files.values():
        say(file.coverage(benchmark.name, benchmark.tasks))
    if len(files) > 1:
        say(f"The figures are over the {len(shared)} tasks that both files have rows for.")
    sandbox = sandbox_of(config)
    digests = {system: file.digest for system, file in files.items()}
    run = begin(config, fresh, "evaluate", benchmark=benchmark.fingerprint(), **digests)
    OmegaConf.save(config, run.directory / CONFIG_FILE, resolve=True)
    write_jsonl(run.directory / "tasks.jsonl", present)
    results, judged = {}, {}
    for system, file in files.items():
        directory = run.directory / system
        given.judge_file(file, benchmark.tasks, directory, cache=Path(config.paths.cache), workers=config.workers,
                         extra_disabled=config.extra_disabled, sandbox=config.sandbox, title=system)
        given.write_row_verdicts(run.directory / f"verdicts{'' if system == 'given' else '_against'}.jsonl", directory)
        judged[system] = given.results_by_task(directory)
        results[system] = summarise(shared, *judged[system], ks=ks)
    differences = compare(shared, judged["base"], judged["given"], ks=ks) if len(files) > 1 else {}
    facts = collect_provenance(
        ROOT, benchmark=benchmark.name, benchmark_fingerprint=benchmark.fingerprint(),
        files={system: file.facts() for system, file in files.items()}, sandbox=sandbox,
        wall_seconds=round(time.monotonic() - started, 1), resumed=run.resumed,
    )
    metrics, report = _report(run, results, differences, facts)
    for system in files:
        given.drop_journals(run.directory / system)
    mirror_without_lightning(config.logger or {}, run.directory, metrics, list(config.tags),
                                      OmegaConf.to_container(config, resolve=True))
    print(f"\nRun directory: {run.directory}\nReport: {report}\nOne line a row: {run.directory / 'verdicts.jsonl'}")
    return optimized(config, metrics)


def _report(run: RunDirectory, results: dict[str, Any], differences: dict[str, Any], facts: dict[str, Any]
            ) -> tuple[dict[str, float], Path]:
    """metrics.json, tables, figures and report of a run, which is then finished; its metrics by name, the report."""
    from cptlab.metrics.summary import flat
    from cptlab.reporting import make_report, print_tables

    write_json(run.directory / METRICS_FILE, {"results": results, "differences": differences, **facts})
    report = make_report(run.directory)
    run.finish()
    print_tables(run.directory)
    return flat(results), report
