"""The model card of a shared adapter: what it is, how it was trained, what was measured, its limits, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cptlab.adapters.peft_format import CONFIG
from cptlab.backbone.loading import EMBEDDED
from cptlab.metrics.definitions import PYLINT, QUALITY, SCORES, find_metric, label_of
from cptlab.reporting.evaluation import Evaluation, Metrics, compute_metrics, read_evaluation
from cptlab.reporting.layout import to_markdown
from cptlab.reporting.tables import overview_table
from cptlab.sharing.shared_run import SharedRun

PAPER = "[Comparative Prefix-Tuning](https://arxiv.org/abs/2503.09020)"
OBJECTIVES = {"CPT": PAPER, "NLL": "the likelihood of the better programs alone"}  # the others by their names
Evaluated = list[tuple[str, Evaluation, Metrics]]  # benchmark, evaluation, its metrics


def model_card(run: SharedRun, repo: str, licence: str | None) -> str:
    """Return the README of the repository `repo`. `licence`: the backbone's, as the hub names it; None: not known."""
    evaluated = _evaluated(run)
    parts = [
        f"---\n{yaml.safe_dump(_metadata(run, licence), sort_keys=False)}---",
        f"# {repo.partition('/')[2]}",
        *_what(run),
        *_in_short(evaluated),
        "## How to use it",
        *_use(run, repo),
        "## How it was trained",
        _training(run),
        "## Results",
        *_results(evaluated),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(run, evaluated)),
        "## Licence",
        _licence(run, licence),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(run: SharedRun, licence: str | None) -> dict[str, Any]:
    """Return what the hub searches by."""
    found: dict[str, Any] = {"library_name": "peft", "pipeline_tag": "text-generation"}
    found |= {} if run.embedded else {"base_model": run.base}
    found |= {} if licence is None else {"license": licence}
    return found | {"tags": ["cptlab", "code", "pylint", "prefix-tuning" if run.kind == "prefix" else run.kind]}


def _backbone(run: SharedRun) -> str:
    return f"`{run.base}`" if run.embedded else f"[{run.base}](https://huggingface.co/{run.base})"


def _what(run: SharedRun) -> Iterator[str]:
    if run.kind == "prefix":
        length = json.loads((run.adapter / CONFIG).read_text(encoding="utf-8"))["num_virtual_tokens"]
        what = f"A prefix of {length} positions of keys and values for {_backbone(run)}"
    else:
        what = f"A LoRA for {_backbone(run)}"
    yield (
        f"{what}. It is trained so that the Python programs that the model writes get fewer messages from pylint. The "
        "weights of the model stay as they are."
    )
    if run.embedded:
        yield f"{_backbone(run)} is the tiny model inside the package cptlab. It knows the generated benchmark kata alone."


def _use(run: SharedRun, repo: str) -> Iterator[str]:
    base, revision = f'"{run.base}"', f', revision="{run.revision}"' if run.revision else ""
    imports = "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
    if run.embedded:
        imports = f"from importlib.resources import files\n\n{imports}"
        base, revision = f'files("cptlab") / "kata" / "{EMBEDDED[run.base]}"', ""
    yield f"With transformers and PEFT{' (and cptlab, which has the model in it)' if run.embedded else ''}:"
    yield (
        f"```python\n{imports}\nmodel = AutoModelForCausalLM.from_pretrained({base}{revision})\n"
        f'model = PeftModel.from_pretrained(model, "{repo}")\n```'
    )
    yield "With cptlab, which also has a dial on the strength of a prefix and judges what it does:"
    name = repo.partition("/")[2]
    yield (
        f'```\ncptlab pull repo={repo}\ncptlab generate run={name} "def mean(numbers):"\ncptlab evaluate run={name}\n```'
    )
    prompting = run.config["backbone"].get("prompting")
    if prompting != "base" and not run.embedded:
        yield (
            "Where the tokenizer has a chat template, cptlab asks through it, with the answer opened by a fenced block of "
            "Python. The adapter was trained on prompts of that form."
        )


def _training(run: SharedRun) -> str:
    config, record = run.config, run.record
    objective = config.get("objective") or {}
    name = str(objective.get("_target_", "")).rpartition(".")[2]
    weights = ", ".join(f"{key} {value:g}" for key, value in objective.items() if type(value) in (int, float))
    stages, backbone = config.get("stages") or {}, config["backbone"]
    choices = record.get("choices") or {}
    versions, git = run.metrics.get("versions") or {}, run.metrics.get("git") or {}
    commit = git.get("commit") and f", commit {git['commit'][:12]}{' with local changes' if git.get('dirty') else ''}"
    rows = {
        "Objective": f"{OBJECTIVES.get(name, name)}{f' ({weights})' if weights else ''}",
        "Ablation": None if choices.get("ablation") in (None, "full") else choices["ablation"],
        "Pairs": _pairs(run),
        "Tasks of the pairs": str((config.get("benchmark") or {}).get("_target_", "")).rpartition(".")[2],
        "Epochs": " + ".join(str(stages[key]) for key in ("first_epochs", "second_epochs") if key in stages),
        "Learning rates": ", ".join(
            f"{stages[key]:g}" for key in ("learning_rate", "second_learning_rate") if stages.get(key)
        ),
        "Seed": config.get("seed"),
        "Precision of the backbone": backbone.get("quantization") or backbone.get("dtype"),
        "Trained with": versions.get("cptlab") and f"cptlab {versions['cptlab']}{commit or ''}",
    }
    lines = [f"| {title} | {value} |" for title, value in rows.items() if value not in (None, "")]
    return (
        "\n".join(["| | |", "|---|---|", *lines])
        + "\n\n`training/` has every setting, and the figures of the training."
    )


def _pairs(run: SharedRun) -> str | None:
    counts = ((run.metrics.get("pair_statistics") or {}).get("pairs") or {}).get("all")
    if not counts:
        return None
    return (
        f"{counts['train']} to train on and {counts['validation']} to validate, each a better and a worse program for one "
        f"task, as {label_of((run.metrics.get('pair_statistics') or {}).get('scorer', PYLINT))} scores them"
    )


def _in_short(evaluated: Evaluated) -> Iterator[str]:
    """Say what changes, in a line for each benchmark and system."""
    lines = []
    for benchmark, evaluation, metrics in evaluated:
        for system, found in metrics.differences.items():
            shift = found[list(evaluation.levels)[-1]]
            names = (f"{evaluation.scorer}_mean", *(f"pass@{k}" for k in evaluation.ks or ()))
            shown = [_change(name, shift) for name in names if name in shift]
            lines.append(
                f"- {benchmark} ({len(evaluation.tasks)} tasks), {system} against {evaluation.baseline}: {'; '.join(shown)}."
            )
    if lines:
        yield "\n".join(["What changes, with 95% intervals:", "", *lines])


def _change(name: str, shift: Mapping[str, Any]) -> str:
    metric = find_metric(name)
    scale, digits, unit = (1, 2, "") if metric.family == QUALITY else (100, 1, " points")
    value, low, high = (f"{scale * number:+.{digits}f}" for number in (shift[name], *shift[f"{name}_ci"]))
    return f"{metric.label} {value}{unit} [{low}, {high}]"


def _results(evaluated: Evaluated) -> Iterator[str]:
    if not evaluated:
        yield "There is no evaluation of this adapter here, so nothing is known of what it does."
    for benchmark, evaluation, metrics in evaluated:
        facts = evaluation.provenance
        yield (
            f"### {benchmark}\n\nSplit {facts.get('split', 'test')}, {len(evaluation.tasks)} tasks, "
            f"{evaluation.samples_per_task} a task, {_decoding(evaluation)}. Changes are paired by task."
        )
        for family in SCORES:
            yield to_markdown(overview_table(evaluation, metrics.results, metrics.differences, family)).strip()
        yield f"[All tables](evaluations/{benchmark}/tables), and `evaluations/{benchmark}/report.html` with every program."


def _evaluated(run: SharedRun) -> Evaluated:
    found = {benchmark: read_evaluation(directory) for benchmark, directory in run.evaluations.items()}
    return [(benchmark, evaluation, compute_metrics(evaluation)) for benchmark, evaluation in found.items()]


def _decoding(evaluation: Evaluation) -> str:
    decoding: Mapping[str, Any] = evaluation.provenance.get("decoding") or {}
    samplings = {json.dumps(one.get("sampling"), sort_keys=True) for one in decoding.values()}
    if len(samplings) != 1:
        return "sampled as the report says"
    sampling = json.loads(samplings.pop()) or {}
    if sampling.get("temperature") == 0:
        return "greedy"
    return f"temperature {sampling.get('temperature')}, top-p {sampling.get('top_p')}"


def _limits(run: SharedRun, evaluated: Evaluated) -> Iterator[str]:
    yield f"It works with {_backbone(run)} alone{f', at revision {run.revision}' if run.revision else ''}."
    yield (
        "The score is pylint's, without the checks of whitespace, naming, docstrings and imports (eq. 15 of the paper). It "
        "does not say whether code is right, safe, fast or easy to read."
    )
    if any(benchmark.startswith("kata") for benchmark, _, _ in evaluated):
        yield "kata is a generated benchmark of small tasks. Results on it say nothing about other tasks and models."
    yield "It was trained once, from one seed. Another seed gives other figures."
    yield "Programs of a language model are not to be trusted: read them, and run them in a sandbox."


def _licence(run: SharedRun, licence: str | None) -> str:
    where = (
        "" if run.embedded else f" See {_backbone(run)} for its terms, which hold where the adapter is used with it."
    )
    if licence is None:
        return f"The licence of the backbone was not looked up.{where}"
    return f"The backbone has the licence {licence}.{where}"
