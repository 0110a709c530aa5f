"""Measure attention dilution and draw SPA's Fig. 2 and 3.

    cptlab dilution backbone=kata_lm benchmark=kata limit=60
    cptlab dilution run=logs/train/runs/<time> compare=[logs/dilution/runs/<time>]

The run directory gets `dilution.json` (every share, and their means), `attention.png`, `gradient.png` and both as SVG.
Programs and shares are cached task by task, so a killed run goes on where it was.
"""

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab.commands.shared.common import ROOT, TOO_LONG, say, say_left_out, write_config
from cptlab.commands.shared.systems import prompted
from cptlab.errors import UserError
from cptlab.process.ends import exit_with
from cptlab.settings.entry import hydra_command
from cptlab.settings.instantiate import instantiate
from cptlab.settings.run_record import describe, read_training
from cptlab.settings.sweep import job_finished_before
from cptlab.storage.atomic import write_bytes, write_text
from cptlab.storage.digests import fingerprint
from cptlab.storage.run_directory import open_run, training_run
from cptlab.tracking.provenance import collect_provenance

DATA_FILE = "dilution.json"
INCIDENTAL = ("paths", "print_config", "task_name", "compare")  # settings that do not make a run another run


def dilution(config: DictConfig, fresh: Path) -> None:
    """Generate programs, compute the shares, average them and draw the figures."""
    started = time.monotonic()
    _check(config)
    earlier = [_earlier(directory, config.gradient) for directory in config.compare]
    trained = training_run(config.run, Path(config.paths.logs), ("prefix",)) if config.run is not None else None
    from cptlab.adapters import Policy, load_prefix
    from cptlab.analysis.dilution import summary
    from cptlab.analysis.dilution.attention_share import Shares, compute_shares
    from cptlab.analysis.dilution.programs import Program, check_decoding, generate_program
    from cptlab.progress import progress_bar
    from cptlab.reporting.layout import to_text
    from cptlab.storage.chunk_store import ChunkStore
    from cptlab.systems.decoding import Decoding
    from cptlab.systems.loading import LoadedSystem, leave_out_long

    source = OmegaConf.load(trained / "config.yaml") if trained else config
    benchmark = instantiate(config.get("benchmark") or source.benchmark, "benchmark")
    every = benchmark.split(config.split, config.limit)
    sampling, guidance, strategy = (_decoding(config, part) for part in ("sampling", "guidance", "strategy"))
    backbone = instantiate(prompted(config.get("backbone") or source.backbone, config.prompting), "backbone")
    prefix = load_prefix(trained / "prefix", backbone.shape).to(backbone.device) if trained else None
    check_decoding(sampling, guidance, strategy, prefix)
    limit = min(config.max_tokens, max(sampling.limit(task.prompt) for task in every))
    short = replace(sampling, max_new_tokens=limit)
    system = LoadedSystem("dilution", Policy(backbone, prefix), Decoding(short, strategy, guidance))
    (fitting,), left_out = leave_out_long([system], every)
    say_left_out(left_out, len(every))
    tasks = {task.id: task for task in fitting}
    prompts = {task.id: system.shown_prompt(task) for task in fitting}
    work = {
        "backbone": backbone.fingerprint,
        "dtype": str(backbone.dtype),
        "seed": config.seed,
        "prefix": hashlib.sha256(prefix.collapsed().detach().cpu().numpy().tobytes()).hexdigest() if prefix else None,
        "prompts": hashlib.sha256(repr(list(prompts.values())).encode()).hexdigest(),
        "decoding": repr((sampling, guidance, strategy)),
        "max_tokens": config.max_tokens,
    }
    container: Any = OmegaConf.to_container(config, resolve=True)
    content = {name: value for name, value in container.items() if name not in INCIDENTAL}
    digest = fingerprint(content | work)
    if finished := job_finished_before(digest):
        say(f"Finished before: {finished}")
        return
    runs = {"tuned": trained} if trained else {}
    run = open_run(fresh, Path(config.paths.logs) / "dilution", digest, describe(config, runs))
    write_config(config, run)
    cache = Path(config.paths.cache)

    written = ChunkStore(cache / "dilution_programs", Program, work, list(tasks))

    decoding = {"prefix": prefix, "guidance": guidance, "strategy": strategy, "seed": config.seed}

    def write(task_id: str) -> list[Program]:
        prompt = prompts[task_id]
        return [generate_program(backbone, task_id, prompt, sampling, max_tokens=config.max_tokens, **decoding)]

    with progress_bar("generating programs", len(tasks), "programs") as advance:
        written.compute(write, advance)

    programs = {program.task_id: program for program in written.records()}
    work |= {"gradient": config.gradient and config.top_logits}
    measured = ChunkStore(cache / "dilution", Shares, work, list(tasks))
    waiting = {task_id: len(programs[task_id].tokens) for task_id in measured.missing()}
    total = sum(len(program.tokens) for program in programs.values())

    options = {"prefix": prefix, "gradient": config.gradient, "top_logits": config.top_logits}
    with progress_bar(
        "measuring attention on the prompt", total, "tokens", done=total - sum(waiting.values())
    ) as advance:
        measured.compute(lambda task_id: [compute_shares(backbone, programs[task_id], progress=advance, **options)])

    shares = list(measured.records())
    means, halves = summary.by_token(shares), summary.change(shares)
    label = backbone.name + (" with prefix" if prefix else "")
    how = ["greedy" if sampling.greedy else f"T = {sampling.temperature:g}"]
    how += [f"{type(guidance.negative).__name__}, ω = {guidance.omega:g}"] if guidance else []
    how += [type(strategy).__name__] if strategy else []
    about = ", ".join([f"{benchmark.name} ({config.split})", f"{len(shares)} tasks", *how])
    facts = collect_provenance(
        ROOT,
        backbone_fingerprint=backbone.fingerprint,
        benchmark_fingerprint=benchmark.fingerprint(),
        split=config.split,
        seed=config.seed,
        training_run=str(trained) if trained else None,
        run=run.record,
        training={name: read_training(directory) for name, directory in runs.items()},
        decoding=work["decoding"],
        left_out={TOO_LONG: left_out},
        max_tokens=config.max_tokens,
        top_logits=config.top_logits if config.gradient else None,
        wall_seconds=round(time.monotonic() - started, 1),
        resumed=run.resumed,
    )
    rows = [{"difficulty": tasks[row.task_id].difficulty} | vars(row) for row in shares]
    _write(
        run.directory / DATA_FILE,
        {
            "label": label,
            "about": about,
            "tasks": len(shares),
            "tokens": total,
            "change": halves,
            "by_token": means,
            "provenance": facts,
            "programs": rows,
        },
    )
    drawn = _draw(run.directory, [{"label": label, "about": about, "by_token": means}, *earlier])
    run.finish()
    print(to_text(summary.table(f"{label}: {about}", means)))
    print("\n".join(summary.sentences(halves)))
    print(f"\nRun directory: {run.directory} ({DATA_FILE}{', '.join(['', *drawn])})")


def _check(config: DictConfig) -> None:
    """Raise UserError if no benchmark or no backbone is named, and for a decoding that runs tests or another engine."""
    if config.decoding.get("second_try"):
        raise UserError("No program is run on tests here, so none gets a second try. Set decoding.second_try=false.")
    if config.decoding.get("steering"):
        raise UserError("The attention that is measured is the model's own. Set decoding.steering=null.")
    if config.decoding.get("engine") == "vllm":
        raise UserError("Attention is measured while cptlab's own engine generates. Set decoding.engine=cptlab.")
    for name in ("benchmark", "backbone"):
        if config.run is None and config.get(name) is None:
            usual = {"benchmark": "kata", "backbone": "kata_lm"}[name]
            raise UserError(f"Nothing says which {name} to measure. Add {name}={usual}, or run=<a training run>.")


def _decoding(config: DictConfig, part: str) -> Any:
    """Build a part of the decoding, or None if the configuration has none."""
    node = config.decoding.get(part)
    return instantiate(node, f"decoding.{part}") if node else None


def _earlier(directory: str, gradient: bool) -> dict[str, Any]:
    """Read the results of an earlier run of this command. Raises UserError if there are none that fit."""
    try:
        found = json.loads((Path(directory) / DATA_FILE).read_text(encoding="utf-8"))
        if gradient <= ("gradient" in found["by_token"]):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{directory} holds no {DATA_FILE} to compare with. Give directories that this command made."
        ) from None
    raise UserError(f"{directory} was measured without gradients. Measure it again with gradient=true.")


def _draw(directory: Path, measured: list[dict[str, Any]]) -> list[str]:
    """Draw attention.* and gradient.*, and return their names. Models with the same label are numbered."""
    from cptlab.analysis.dilution.figures import dilution_figure
    from cptlab.reporting.figures import render

    models: dict[str, Any] = {}
    for one in measured:
        label = one["label"] if one["about"] == measured[0]["about"] else f"{one['label']} ({one['about']})"
        number = 1 + sum(label == other.partition(" #")[0] for other in models)
        models[label if number == 1 else f"{label} #{number}"] = one["by_token"]
    drawn = []
    for series in ("attention", "gradient"):
        if series in measured[0]["by_token"]:
            for kind, picture in render(dilution_figure(models, series, measured[0]["about"])).items():
                drawn.append(f"{series}.{kind}")
                write_bytes(directory / drawn[-1], picture)
    return drawn


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with a line for each program. The file appears complete or not at all."""
    programs = ",\n".join(json.dumps(row) for row in content.pop("programs"))
    head = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in content.items())
    write_text(path, f'{{\n{head}"programs": [\n{programs}\n]\n}}\n')


main = hydra_command("dilution", dilution)

if __name__ == "__main__":
    exit_with(main())
