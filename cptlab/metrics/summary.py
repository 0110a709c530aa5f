"""From scores and verdicts per sample to the figures of CPT Tables II and III, each with its interval over tasks.

Tasks may differ in their number of samples: each figure of a task is over its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.statistics import bootstrap_ci, paired_difference, pass_at_k
from cptlab.records import DIFFICULTIES, Quality, Task, Verdict

DEFAULT_KS = (1, 5, 10, 100)

Summary = dict[str, dict[str, Any]]
Judged = tuple[Mapping[str, Sequence[Quality]], Mapping[str, Sequence[Verdict]]]


def summarise(
    tasks: Sequence[Task],
    qualities: Mapping[str, Sequence[Quality]],
    verdicts: Mapping[str, Sequence[Verdict]],
    ks: Sequence[int] | None = None,
    seed: int = 0,
) -> Summary:
    """`result[difficulty][metric]` for introductory, interview, competition and all.

    Metrics: `pylint_mean`, `pylint_max`, `pylint_min` (of a task's samples, then the mean over tasks; 0 to 10),
    `pass@k` (a fraction, 0 to 1, under the rule that decides), `<rule>_pass@k` for every further comparison rule of the
    tasks, each with its 95% task bootstrap interval [low, high] under `<metric>_ci`; and `tasks`, their number. A
    difficulty without tasks has `tasks` 0 and None for the rest; a task without a difficulty counts in all alone.
    `qualities` and `verdicts` map a task's id to its samples. For `ks` see `allowed_ks`.
    """
    values = _per_task(tasks, qualities, verdicts, ks)
    result: Summary = {}
    for difficulty, chosen in _groups(tasks).items():
        row: dict[str, Any] = {}
        for metric, per_task in values.items():
            numbers = [per_task[task.id] for task in chosen]
            row[metric] = sum(numbers) / len(numbers) if numbers else None
            row[f"{metric}_ci"] = list(bootstrap_ci(numbers, seed=seed)) if numbers else None
        row["tasks"] = len(chosen)
        result[difficulty] = row
    return result


def compare(
    tasks: Sequence[Task], base: Judged, tuned: Judged, ks: Sequence[int] | None = None, seed: int = 0
) -> Summary:
    """Tuned minus base, in the form of `summarise`: each metric's mean paired difference over tasks and its interval.

    `base` and `tuned` are each a pair (qualities, verdicts) as `summarise` takes them, with samples of all these tasks.
    """
    if ks is None:
        ks = [k for k in allowed_ks(_counts(tasks, *base)) if k in allowed_ks(_counts(tasks, *tuned))]
    before, after = _per_task(tasks, *base, ks), _per_task(tasks, *tuned, ks)
    result: Summary = {}
    for difficulty, chosen in _groups(tasks).items():
        row: dict[str, Any] = {}
        for metric in before:
            row[metric] = row[f"{metric}_ci"] = None
            if chosen:
                sides = [[side[metric][task.id] for task in chosen] for side in (before, after)]
                row[metric], *interval = paired_difference(*sides, seed=seed)
                row[f"{metric}_ci"] = interval
        row["tasks"] = len(chosen)
        result[difficulty] = row
    return result


def allowed_ks(counts: Mapping[str, int], ks: Sequence[int] | None = None) -> list[int]:
    """The k of pass@k for tasks with these numbers of samples: those of 1, 5, 10 and 100 that all allow, or `ks`.

    A k asked for that is greater than a task's number of samples is a UserError that names the task.
    """
    task, fewest = min(counts.items(), key=lambda item: item[1], default=("", 0))
    if fewest < 1:
        raise UserError(f"Task {task!r} has no samples, and a summary needs at least one. Leave it out, or raise n.")
    if ks is None:
        return [k for k in DEFAULT_KS if k <= fewest]
    if too_large := [k for k in ks if k > fewest]:
        raise UserError(
            f"pass@{too_large[0]} cannot be estimated for task {task!r} from its n={fewest} samples. "
            f"Draw at least {max(too_large)} samples per task, or ask for k <= {fewest}."
        )
    return list(ks)


def flat(results: Mapping[str, Summary]) -> dict[str, float]:
    """results[system][difficulty][metric] as `system/difficulty/metric`, numbers only."""
    return {f"{system}/{difficulty}/{metric}": float(value)
            for system, by_difficulty in results.items() for difficulty, metrics in by_difficulty.items()
            for metric, value in metrics.items() if isinstance(value, (int, float))}  # fmt: skip


def _groups(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    groups = {name: [task for task in tasks if task.difficulty == name] for name in DIFFICULTIES}
    return {**groups, "all": list(tasks)}


def _counts(
    tasks: Sequence[Task], qualities: Mapping[str, Sequence[Quality]], verdicts: Mapping[str, Sequence[Verdict]]
) -> dict[str, int]:
    for task in tasks:
        if len(qualities[task.id]) != len(verdicts[task.id]):
            raise ValueError(f"task {task.id}: {len(qualities[task.id])} scores and {len(verdicts[task.id])} verdicts")
    return {task.id: len(qualities[task.id]) for task in tasks}


def _per_task(
    tasks: Sequence[Task],
    qualities: Mapping[str, Sequence[Quality]],
    verdicts: Mapping[str, Sequence[Verdict]],
    ks: Sequence[int] | None,
) -> dict[str, dict[str, float]]:
    """metric -> task id -> value."""
    ks = allowed_ks(_counts(tasks, qualities, verdicts), ks)
    further = sorted({rule for task in tasks for rule in task.rules[1:]})
    values: dict[str, dict[str, float]] = {
        name: {} for name in ("pylint_mean", "pylint_max", "pylint_min", *(f"pass@{k}" for k in ks))
    }
    values |= {f"{rule}_pass@{k}": {} for rule in further for k in ks}
    for task in tasks:
        scores = [quality.score for quality in qualities[task.id]]
        n = len(scores)
        values["pylint_mean"][task.id] = sum(scores) / n
        values["pylint_max"][task.id] = max(scores)
        values["pylint_min"][task.id] = min(scores)
        for prefix, rule in (("", None), *((f"{rule}_", rule) for rule in further)):
            right = sum(verdict.by_rule.get(rule, verdict.status) == "passed" for verdict in verdicts[task.id])
            for k in ks:
                values[f"{prefix}pass@{k}"][task.id] = pass_at_k(n, right, k)
    return values
