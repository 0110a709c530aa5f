"""The three things a user runs, each readable from top to bottom: build pairs, train, evaluate.

Everything here is glue: what a step does stands in the step's own package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab import settings, tracking
from cptlab.decoders import described, guidance_of, guidances_of_systems, strategy_of
from cptlab.errors import UserError
from cptlab.pairs.selection import FilterCounts
from cptlab.records import write_jsonl
from cptlab.runs import CONFIG_FILE, Run, locked, open_run, training_run, write_json

ROOT = Path(__file__).resolve().parent.parent
PAIRS_FILE, STATISTICS_FILE, METRICS_FILE = "pairs.jsonl", "statistics.json", "metrics.json"
# what does not change a result, and so does not make a run another run
INCIDENTAL = ("paths", "logger", "print_config", "tags", "callbacks", "task_name", "workers", "optimized_metric")


def say(text: str) -> None:
    """A line for the user, from the main process alone."""
    if settings.is_main_process():
        print(text, file=sys.stderr, flush=True)


def build_pairs(config: DictConfig, backbone: Any = None) -> Path:
    """Algorithm 1 for the tasks of splits train and validation; the directory with pairs.jsonl and statistics.json.

    Kept in the cache under all that it depends on; a killed build goes on where it was. Raises UserError where no
    pair is left, with what each filter dropped. Where `pairs.dataset` names ready-made pairs, they are read instead.
    """
    from cptlab import pairs
    from cptlab.samples import prompt_of, sample_and_judge

    if "dataset" in config.pairs:
        return _ready_pairs(config, backbone or settings.build(config.backbone, "backbone"))
    benchmark = settings.build(config.benchmark, "benchmark")
    tasks = benchmark.split("train", config.pairs.train_tasks) + benchmark.split(
        "validation", config.pairs.validation_tasks
    )
    backbone = backbone or settings.build(config.backbone, "backbone")
    if config.decoding.guidance or config.decoding.strategy:
        raise UserError("Pairs are made of the model's plain samples, so this decoding is for evaluate.py. Use decoding=paper "
                        "or decoding=llm here.")
    options = settings.build(config.pairs.selection, "pairs.selection")
    sampling = settings.build(config.decoding.sampling, "decoding.sampling")
    cache = Path(config.paths.cache)
    work = {
        "pairs": OmegaConf.to_container(config.pairs, resolve=True), "backbone": backbone.fingerprint,
        "template": backbone.prompt_template, "tasks": [repr(task) for task in tasks],
        "sampling": dataclasses.asdict(sampling), "seed": config.pairs.seed,
    }
    directory = cache / "pairs" / settings.fingerprint(work)
    with locked(directory):
        if (directory / STATISTICS_FILE).is_file():
            say(f"Pairs: found in {directory}")
            return directory
        judged = sample_and_judge(backbone, tasks, config.pairs.n, sampling, cache=cache, seed=config.pairs.seed,
                                  token_budget=config.decoding.token_budget, workers=config.workers, sandbox=config.sandbox, title="pairs")
        by_id = {task.id: task for task in tasks}
        counts, found = FilterCounts(), []
        for task_id, completions, qualities, verdicts in judged.by_task():
            task = dataclasses.replace(by_id[task_id], prompt=prompt_of(by_id[task_id], backbone))
            choice, dropped = pairs.select_pair(task, completions, qualities, verdicts, options)
            counts += dropped
            if choice is not None:
                found.append(pairs.make_pair(task, choice, completions, qualities, backbone.encode_completion,
                                             backbone.decode, refine=config.pairs.refine))
        if not any(pair.split == "train" for pair in found):
            raise pairs.no_pairs_left(counts, options)
        statistics = pairs.pair_statistics(found, backbone.encode_completion, backbone.decode)
        statistics |= {"filters": dataclasses.asdict(counts)}
        pairs.write_pairs(directory / PAIRS_FILE, found)
        write_json(directory / STATISTICS_FILE, statistics)
    say(f"Pairs: {len(found)} from {len(tasks)} tasks and {counts.samples} programs, in {directory}")
    return directory


def _ready_pairs(config: DictConfig, backbone: Any) -> Path:
    """The pairs of a data set, in this backbone's tokens, as `build_pairs` leaves its own."""
    from cptlab import pairs

    found, counts = settings.build(config.pairs.dataset, "pairs.dataset", encode=backbone.encode_completion,
                                   max_tokens=backbone.context_length - config.pairs.reserved)
    content = hashlib.sha256(repr(found).encode()).hexdigest()
    directory = Path(config.paths.cache) / "pairs" / settings.fingerprint({"ready": content})
    with locked(directory):
        if not (directory / STATISTICS_FILE).is_file():
            statistics = pairs.pair_statistics(found, backbone.encode_completion, backbone.decode)
            pairs.write_pairs(directory / PAIRS_FILE, found)
            write_json(directory / STATISTICS_FILE, statistics | {"filters": counts})
    said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    say(f"Pairs: {len(found)} ({said}), in {directory}")
    return directory


def train(config: DictConfig, fresh: Path) -> float | None:
    """Pairs, both stages, and `prefix/` in PEFT format in the run directory; the value of `optimized_metric`."""
    started = time.monotonic()
    from cptlab.backbone import save_prefix
    from cptlab.reporting.curves import last_epochs
    from cptlab.training import make_trainer, train_stages

    backbone = settings.build(config.backbone, "backbone")
    objective = settings.build(config.objective, "objective")
    prefix = settings.build(config.prefix, "prefix", backbone.shape, seed=config.seed, _partial_=False)
    prefix.to(backbone.device)
    callbacks = [settings.build(node, f"callbacks.{name}") for name, node in (config.callbacks or {}).items()]
    trainer = settings.build(config.trainer, "trainer")
    make_trainer(trainer, logger=False)  # a machine without the devices is found now, not after the pairs
    mine = config.data.pairs_file  # with what it holds, so that a corrected file is a new run
    content = {"backbone": backbone.fingerprint} | ({"pairs": hashlib.sha256(_bytes(mine)).hexdigest()} if mine else {})
    run = begin(config, fresh, "train", **content)
    main_process = settings.is_main_process()
    if main_process:
        OmegaConf.save(config, run.directory / CONFIG_FILE, resolve=True)
    pairs_file = Path(config.data.pairs_file or build_pairs(config, backbone) / PAIRS_FILE)
    statistics = _read_json(pairs_file.with_name(STATISTICS_FILE)) if config.data.pairs_file is None else {}
    data = settings.build(config.data.loader, "data.loader", pairs_file, backbone, _partial_=False)
    loggers = _loggers(config, run, "train") if main_process else []
    with tracking.finished_at_the_end(loggers):
        try:
            train_stages(backbone, prefix, data, objective, directory=run.directory / "training", trainer=trainer,
                         callbacks=callbacks, loggers=loggers, **config.stages)
        except UserError as error:
            again = f" To start this run afresh, delete {run.directory}." if run.resumed else ""
            raise UserError(f"{error}{again}") from None
        if not main_process:
            return None
        save_prefix(prefix, run.directory / "prefix", backbone,
                    extra={"run": run.directory.name, "backbone": backbone.fingerprint})
        metrics = last_epochs(run.directory / "training")
        facts = tracking.provenance(
            ROOT, seed=config.seed, backbone=backbone.fingerprint, pairs=str(pairs_file), pair_statistics=statistics,
            trainable_parameters=sum(p.numel() for p in prefix.parameters()),
            prefix_parameters=prefix.collapsed().numel(),
            wall_seconds=round(time.monotonic() - started, 1), resumed=run.resumed,
        )
        write_json(run.directory / METRICS_FILE, {"metrics": metrics, **facts})
    run.finish()
    print(f"Prefix: {run.directory / 'prefix'}")
    print(f"Evaluate it with: python evaluate.py run={run.directory}")
    return _optimized(config, metrics)


def evaluate(config: DictConfig, fresh: Path) -> float | None:
    """The base model against the tuned one on held-out tasks, or programs that other tools made (`completions`).

    Tables, figures and report in the run directory; returns the value of `optimized_metric`.
    """
    if config.completions is not None:
        return _evaluate_given(config, fresh)
    started = time.monotonic()
    from cptlab.backbone import load_prefix
    from cptlab.judging.summary import allowed_ks, compare, summarise
    from cptlab.samples import Judged, sample_and_judge

    trained = training_run(config.run, Path(config.paths.logs))
    sandbox = sandbox_of(config)
    source = OmegaConf.load(trained / CONFIG_FILE) if trained else config
    benchmark = settings.build(config.get("benchmark") or source.benchmark, "benchmark")
    node = (config.get("backbone") or source.backbone).copy()
    if config.device is not None:
        node.device = config.device
    backbone = settings.build(node, "backbone")
    tasks = benchmark.split(config.split, config.limit)
    sampling = settings.build(config.decoding.sampling, "decoding.sampling")
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
    facts = tracking.provenance(
        ROOT, seed=config.seed, n=config.n, split=config.split, benchmark=benchmark.name,
        benchmark_fingerprint=benchmark.fingerprint(), backbone=backbone.name, backbone_fingerprint=backbone.fingerprint,
        training_run=str(trained) if trained else None, sandbox=sandbox, decoding=described(guidances, strategy),
        wall_seconds=round(time.monotonic() - started, 1), resumed=run.resumed,
    )
    metrics, report = _report(run, results, differences, facts)
    loggers = _loggers(config, run, "evaluate")
    with tracking.finished_at_the_end(loggers):
        tracking.log_evaluation(loggers, metrics)
    print(f"\nRun directory: {run.directory}\nReport: {report}")
    return _optimized(config, metrics)


def _evaluate_given(config: DictConfig, fresh: Path) -> float | None:
    """Programs in a file, judged as a model's own are: system `given`, and `base` for those of `against`. No model, no
    torch. The figures are over the tasks that have rows (in both files)."""
    started = time.monotonic()
    from cptlab import given
    from cptlab.judging.summary import allowed_ks, compare, summarise

    benchmark = settings.build(config.benchmark, "benchmark")
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
    facts = tracking.provenance(
        ROOT, benchmark=benchmark.name, benchmark_fingerprint=benchmark.fingerprint(),
        files={system: file.facts() for system, file in files.items()}, sandbox=sandbox,
        wall_seconds=round(time.monotonic() - started, 1), resumed=run.resumed,
    )
    metrics, report = _report(run, results, differences, facts)
    for system in files:
        given.drop_journals(run.directory / system)
    tracking.mirror_without_lightning(config.logger or {}, run.directory, metrics, list(config.tags),
                                      OmegaConf.to_container(config, resolve=True))
    print(f"\nRun directory: {run.directory}\nReport: {report}\nOne line a row: {run.directory / 'verdicts.jsonl'}")
    return _optimized(config, metrics)


def sandbox_of(config: DictConfig) -> dict[str, Any]:
    """The sandbox that programs will run in, said to the user. UserError if it is weaker than `sandbox` asks for."""
    from cptlab.judging.sandbox import Sandbox

    with Sandbox(workers=1, at_least=config.sandbox) as sandbox:
        found = {"level": sandbox.level, "protections": sandbox.protections}
    say(f"Sandbox: {found['level']} (asked for: {config.sandbox} or stronger)")
    return found


def begin(config: DictConfig, fresh: Path, task: str, **content: Any) -> Run:
    """The run of these settings and this content, begun or gone on with."""
    run = open_run(fresh, Path(config.paths.logs) / task, _digest(config, **content))
    say(f"{'Going on with the unfinished run' if run.resumed else 'Run directory:'} {run.directory}")
    return run


def _report(run: Run, results: dict[str, Any], differences: dict[str, Any], facts: dict[str, Any]
            ) -> tuple[dict[str, float], Path]:
    """metrics.json, tables, figures and report of a run, which is then finished; its metrics by name, the report."""
    from cptlab.judging.summary import flat
    from cptlab.reporting import make_report, print_tables

    write_json(run.directory / METRICS_FILE, {"results": results, "differences": differences, **facts})
    report = make_report(run.directory)
    run.finish()
    print_tables(run.directory)
    return flat(results), report


def _loggers(config: DictConfig, run: Run, job_type: str) -> list[Any]:
    """The configured loggers of this run; they write below its directory."""
    loggers = []
    for name, node in (config.logger or {}).items():
        extra = {"job_type": job_type, "tags": list(config.tags)} if name == "wandb" else {}
        loggers.append(settings.build(node, f"logger.{name}", save_dir=str(run.directory), **extra))
    for logger in loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    return loggers


def _optimized(config: DictConfig, metrics: dict[str, float]) -> float | None:
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
    return settings.fingerprint({key: value for key, value in content.items() if key not in INCIDENTAL} | more)


def _bytes(path: str) -> bytes:
    if not Path(path).is_file():
        raise UserError(f"There is no pairs file {path}. Check the path, or leave data.pairs_file=null to have them built.")
    return Path(path).read_bytes()


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
