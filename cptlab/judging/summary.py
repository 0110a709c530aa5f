"""From scores and verdicts per sample to the figures of CPT Tables II and III, each with its interval over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cptlab.errors import UserError
from cptlab.judging.statistics import bootstrap_ci, paired_difference, pass_at_k
from cptlab.records import DIFFICULTIES, Quality, Task, Verdict

DEFAULT_KS = (1, 5, 10, 100)

Summary = dict[str, dict[str, Any]]
Judged = tuple[Mapping[str, Sequence[Quality]], Mapping[str, Sequence[Verdict]]]


def summarise(
    tasks: Sequence[Task],
    n: int,
    qualities: Mapping[str, Sequence[Quality]],
    verdicts: Mapping[str, Sequence[Verdict]],
    ks: Sequence[int] | None = None,
    seed: int = 0,
) -> Summary:
    """`result[difficulty][metric]` for introductory, interview, competition and all.

    Metrics: `pylint_mean`, `pylint_max`, `pylint_min` (of a task's `n` samples, then the mean over tasks; 0 to 10),
    `pass@k` (a fraction, 0 to 1), each with its 95% task bootstrap interval [low, high] under `<metric>_ci`; and
    `tasks`, the number of tasks. A difficulty without tasks has `tasks` 0 and None for the rest.
    `qualities` and `verdicts` map a task's id to its samples. `ks` None stands for those of 1, 5, 10 and 100 that n
    allows; a k asked for that is greater than n is a UserError.
    """
    values = _per_task(tasks, n, qualities, verdicts, _allowed(ks, n))
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
    tasks: Sequence[Task],
    n: int,
    base: Judged,
    tuned: Judged,
    ks: Sequence[int] | None = None,
    seed: int = 0,
) -> Summary:
    """Tuned minus base, in the form of `summarise`: each metric's mean paired difference over tasks and its interval.

    `base` and `tuned` are each a pair (qualities, verdicts) as `summarise` takes them, on the same tasks.
    """
    ks = _allowed(ks, n)
    before, after = _per_task(tasks, n, *base, ks), _per_task(tasks, n, *tuned, ks)
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


def _allowed(ks: Sequence[int] | None, n: int) -> list[int]:
    if ks is None:
        return [k for k in DEFAULT_KS if k <= n]
    if too_large := [k for k in ks if k > n]:
        raise UserError(
            f"pass@{too_large[0]} cannot be estimated from n={n} samples per task. "
            f"Draw at least {max(too_large)} samples, or ask for k <= {n}."
        )
    return list(ks)


def _groups(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    groups = {name: [task for task in tasks if task.difficulty == name] for name in DIFFICULTIES}
    return {**groups, "all": list(tasks)}


def _per_task(
    tasks: Sequence[Task],
    n: int,
    qualities: Mapping[str, Sequence[Quality]],
    verdicts: Mapping[str, Sequence[Verdict]],
    ks: Sequence[int],
) -> dict[str, dict[str, float]]:
    """metric -> task id -> value."""
    if n < 1:
        raise UserError(f"A summary needs at least one sample per task, not n={n}. Raise n.")
    values: dict[str, dict[str, float]] = {
        name: {} for name in ("pylint_mean", "pylint_max", "pylint_min", *(f"pass@{k}" for k in ks))
    }
    for task in tasks:
        scores = [quality.score for quality in qualities[task.id]]
        passed = [verdict.passed for verdict in verdicts[task.id]]
        if len(scores) != n or len(passed) != n:
            raise ValueError(f"task {task.id}: {len(scores)} scores and {len(passed)} verdicts for n={n} samples")
        values["pylint_mean"][task.id] = sum(scores) / n
        values["pylint_max"][task.id] = max(scores)
        values["pylint_min"][task.id] = min(scores)
        for k in ks:
            values[f"pass@{k}"][task.id] = pass_at_k(n, sum(passed), k)
    return values
