"""Summaries of an evaluation: the mean of every metric over tasks, with intervals, and paired differences of systems.

Tasks may differ in their number of samples: a metric of a task is over its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.definitions import PYLINT, UNCOUNTED, metrics_for, robust_metrics
from cptlab.metrics.programs import JudgedProgram, scorer_of
from cptlab.metrics.statistics import bootstrap_ci, paired_difference
from cptlab.records import DIFFICULTIES, Task

DEFAULT_KS = (1, 5, 10, 100)

Summary = dict[str, dict[str, Any]]
Programs = Mapping[str, Sequence[JudgedProgram]]  # by task id


def summarise(tasks: Sequence[Task], programs: Programs, ks: Sequence[int] | None = None, seed: int = 0) -> Summary:
    """Return `summary[difficulty][metric]` for introductory, interview, competition and all.

    The metrics are those of `cptlab.metrics.definitions`: of each task's samples, then the mean over tasks. pass@k is a
    fraction, 0 to 1, under the rule that decides; `<rule>_pass@k` is that of every further comparison rule of the tasks,
    and of tests that do not count, over the tasks that have such tests. Each has its 95% task bootstrap interval
    [low, high] under `<metric>_ci`; `tasks` is their number. A difficulty without tasks has `tasks` 0 and None for the
    rest; a task without a difficulty counts in all alone. A metric is over the tasks that have it, and None where none
    has. For `ks` see `allowed_ks`. Where tasks are perturbations, `robust_quality` and `robust_pass@k` are over the tasks
    that they are perturbations of.
    """
    values = per_task(tasks, programs, ks)
    summary: Summary = {}
    for difficulty, chosen in groups(tasks).items():
        row: dict[str, Any] = {}
        for metric, by_task in values.items():
            numbers = [value for task in chosen if (value := by_task[task.id]) is not None]
            row[metric] = sum(numbers) / len(numbers) if numbers else None
            row[f"{metric}_ci"] = list(bootstrap_ci(numbers, seed=seed)) if numbers else None
        row["tasks"] = len(chosen)
        summary[difficulty] = row
    return summary


def compare(
    tasks: Sequence[Task], baseline: Programs, system: Programs, ks: Sequence[int] | None = None, seed: int = 0
) -> Summary:
    """Return system minus baseline in the form of `summarise`: mean paired differences over tasks, and intervals.

    Both have programs for all these tasks.
    """
    if ks is None:
        ks = [k for k in allowed_ks(_counts(tasks, baseline)) if k in allowed_ks(_counts(tasks, system))]
    before, after = per_task(tasks, baseline, ks), per_task(tasks, system, ks)
    summary: Summary = {}
    for difficulty, chosen in groups(tasks).items():
        row: dict[str, Any] = {}
        for metric in before:
            row[metric] = row[f"{metric}_ci"] = None
            pairs = [(before[metric][task.id], after[metric][task.id]) for task in chosen]
            pairs = [(first, second) for first, second in pairs if first is not None and second is not None]
            if pairs:
                first, second = zip(*pairs, strict=True)
                row[metric], *interval = paired_difference(first, second, seed=seed)
                row[f"{metric}_ci"] = interval
        row["tasks"] = len(chosen)
        summary[difficulty] = row
    return summary


def allowed_ks(counts: Mapping[str, int], ks: Sequence[int] | None = None) -> list[int]:
    """Return the k of pass@k for tasks with these numbers of samples: `ks`, or those of 1, 5, 10 and 100 that all allow.

    Raises UserError, naming the task, if a k in `ks` is greater than a task's number of samples.
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
    """Return results[system][difficulty][metric] as `system/difficulty/metric`, numbers only."""
    return {
        f"{system}/{difficulty}/{metric}": float(value)
        for system, summary in results.items()
        for difficulty, row in summary.items()
        for metric, value in row.items()
        if isinstance(value, (int, float))
    }


def bounds(results: Mapping[str, Summary]) -> dict[str, float]:
    """Return the bounds of every 95% interval as `system/difficulty/metric_low` and `_high`."""
    return {
        f"{system}/{difficulty}/{name.removesuffix('_ci')}_{end}": float(value)
        for system, summary in results.items()
        for difficulty, row in summary.items()
        for name, interval in row.items()
        if name.endswith("_ci") and interval is not None
        for end, value in zip(("low", "high"), interval)
    }


def flat_names(
    tasks: Sequence[Task],
    systems: Sequence[str],
    ks: Sequence[int],
    samples: int,
    tokens: bool = True,
    scorer: str = PYLINT,
) -> list[str]:
    """Return the names that `flat` will give for these systems: known before anything is computed.

    `samples`: the most programs of a task. `tokens`: those of the programs are counted.
    """
    rules = [rule for rule in _further_rules(tasks) if rule not in UNCOUNTED]
    names = {
        difficulty: [
            one.name
            for one in (
                *metrics_for(ks, rules + _uncounted(chosen), scorer),
                *(robust_metrics(ks) if _variants(chosen) else ()),
            )
            if one.samples <= samples
        ]
        if chosen
        else []
        for difficulty, chosen in groups(tasks).items()
    }
    return [
        f"{system}/{difficulty}/{name}"
        for system in systems
        for difficulty in names
        for name in (*names[difficulty], "tasks")
        if tokens or name != "tokens"
    ]


def groups(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Return the tasks of each difficulty, and all of them."""
    groups = {name: [task for task in tasks if task.difficulty == name] for name in DIFFICULTIES}
    return {**groups, "all": list(tasks)}


def _further_rules(tasks: Sequence[Task]) -> list[str]:
    return sorted({rule for task in tasks for rule in task.rules[1:]}) + _uncounted(tasks)


def _uncounted(tasks: Sequence[Task]) -> list[str]:
    return sorted({task.uncounted for task in tasks if task.uncounted_tests})


def _counts(tasks: Sequence[Task], programs: Programs) -> dict[str, int]:
    return {task.id: len(programs[task.id]) for task in tasks}


def per_task(tasks: Sequence[Task], programs: Programs, ks: Sequence[int] | None) -> dict[str, dict[str, float | None]]:
    """Return metric -> task id -> value, None for a task that has no such value. For `ks` see `allowed_ks`."""
    ks = allowed_ks(_counts(tasks, programs), ks)
    metrics = metrics_for(ks, _further_rules(tasks), scorer_of(programs[task.id] for task in tasks))
    values: dict[str, dict[str, float | None]] = {
        metric.name: {task.id: metric.of_task(programs[task.id]) for task in tasks} for metric in metrics
    }
    variants = _variants(tasks)
    for metric in robust_metrics(ks) if variants else ():
        assert metric.of_variants is not None
        values[metric.name] = {task.id: None for task in tasks}
        for ids in variants.values():  # one value for all perturbations of a task, which stands at the first
            values[metric.name][ids[0]] = metric.of_variants([programs[one] for one in ids])
    return values


def _variants(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return the ids of the perturbations of each task that has some."""
    found: dict[str, list[str]] = {}
    for task in tasks:
        if task.variant_of:
            found.setdefault(task.variant_of, []).append(task.id)
    return found
