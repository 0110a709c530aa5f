"""What a run came to, for its loggers: figures, programs, media, and the artifacts that lead to them.

Artifacts are named by what the run is: pairs-kata-kata_lm, prefix-no_rank-seed2, programs-no_rank-seed2, evaluation-….
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cptlab.commands.shared.common import STATISTICS_FILE
from cptlab.storage.run_directory import CONFIG_FILE, RunDirectory, adapter_kind
from cptlab.tracking.outcome import Artifact, Outcome, Table, artifact

PROGRAMS = 1000  # rows of the table of programs at most: the first of every task and system come first
COLUMNS = (
    "system",
    "task",
    "difficulty",
    "program_number",
    "{scorer}_score",
    "verdict",
    "reason",
    "messages",
    "program",
)
RECORDS = ("completions.jsonl", "quality.jsonl", "verdicts.jsonl")


def training_outcome(run: RunDirectory, metrics: Mapping[str, float], pairs_file: Path) -> Outcome:
    """Return the figures of the last epochs, the pairs that were used and the adapter that was made."""
    choices = run.record["choices"]
    name = "-".join(["pairs", *(str(choices[group]) for group in ("benchmark", "backbone") if group in choices)])
    files = [pairs_file, pairs_file.with_name(STATISTICS_FILE)]
    pairs = artifact(name, "pairs", pairs_file.parent, files)
    return Outcome(metrics, used=[pairs], made=[_adapter(run.directory, run.record)])


def evaluation_outcome(run: RunDirectory, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> Outcome:
    """Return the results of an evaluation that is written: programs, figures, report, and the adapters that were used.

    `facts`: its metrics.json, of which `training` and `parts` name the training runs.
    """
    directory, label = run.directory, _label(run.record)
    runs = {facts["parts"][system]["run"]: record for system, record in facts.get("training", {}).items()}
    from cptlab.reporting.evaluation import read_evaluation

    evaluation = read_evaluation(directory)
    records = [directory / system / name for system in evaluation.systems for name in RECORDS]
    figures = sorted((directory / "figures").glob("*.png"))
    report = directory / "report.html"
    results = [directory / "metrics.json", directory / CONFIG_FILE, report, *(directory / "tables").iterdir(), *figures]
    return Outcome(
        metrics,
        programs=_programs(evaluation),
        figures={path.stem: path for path in figures},
        report=report,
        used=[_adapter(Path(trained), record) for trained, record in runs.items()],
        made=[
            artifact(f"programs-{label}", "programs", directory, records),
            artifact(f"evaluation-{label}", "evaluation", directory, results),
        ],
    )


def _adapter(directory: Path, record: Mapping[str, Any]) -> Artifact:
    """Return the adapter of a training run, which has the same name whoever uses it."""
    kind = adapter_kind(directory)
    assert kind is not None, directory
    return artifact(f"{kind}-{_label(record)}", kind, directory / kind, list((directory / kind).rglob("*")))


def _label(record: Mapping[str, Any]) -> str:
    """Return the name of a run without its command; that of the defaults is called default."""
    return str(record["name"]).removeprefix(str(record.get("job_type", "train"))).strip("-") or "default"


def _programs(evaluation: Any) -> Table:
    """Return a row for each program, up to `PROGRAMS`: the first of every task and system, then the second, and so on."""
    rows: list[list[Any]] = []
    columns = tuple(name.format(scorer=evaluation.scorer) for name in COLUMNS)
    most = max(len(found) for answers in evaluation.systems.values() for found in answers.values())
    for number in range(most):
        for task in evaluation.tasks:
            for system, answers in evaluation.systems.items():
                if number < len(answers[task.id]):
                    if len(rows) == PROGRAMS:
                        return Table(columns, rows)
                    rows.append([system, task.id, task.difficulty, number, *_shown(answers[task.id][number])])
    return Table(columns, rows)


def _shown(program: Any) -> list[Any]:
    quality, verdict = program.quality, program.verdict
    messages = "\n".join(f"{one.line}: {one.id} {one.symbol}" for one in quality.messages)
    return [quality.score, verdict.status, verdict.reason, messages, program.completion.program]
