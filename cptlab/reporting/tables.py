"""The tables of an evaluation, in the shape of Comparative Prefix-Tuning's Tables II and III.

`results[system][level][metric]` and `differences[system][level][metric]` are those of `cptlab.metrics.summary`; a
level is a difficulty or 'all'. Every mean carries its 95% bootstrap interval over tasks in square brackets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cptlab.metrics.definitions import (
    CORRECTNESS,
    FAMILIES,
    PYLINT,
    SCORES,
    UNCOUNTED,
    Family,
    Metric,
    family_of,
    find_metric,
    label_of,
)
from cptlab.metrics.summary import Summary
from cptlab.records import STATUSES
from cptlab.reporting.answers import answers_note
from cptlab.reporting.evaluation import Evaluation
from cptlab.reporting.layout import Table

UNCOUNTED_TESTS = {"public": "the examples that the prompt shows", "hidden": "further tests of the data set"}
INTERVALS = "In brackets: 95% bootstrap interval over tasks."
NOTES = {  # by the metric that they are about
    "statements": " Statements: of the programs that parse.",
    "lines": " Lines: without blank lines and comments.",
    "tokens": " Tokens: all that the model wrote.",
    "distinct": " Distinct: different texts among a task's programs, per 100.",
    "pylint_errors": " E: errors, W: warnings, R: refactor, C: convention, in programs that parse, per 100 of all programs.",
}
PAIRS_OF = ("Train", "Validation", "Test", "All")

Results = Mapping[str, Summary]


def metrics_of(results: Results, family: Family | None = None) -> list[Metric]:
    """Return the metrics that a system has, all or those of one family, in the order of the tables."""
    found = [row for levels in results.values() for row in levels.values()]
    names = [name for name in found[0] if name != "tasks" and not name.endswith("_ci")]
    names = [name for name in names if any(row.get(name) is not None for row in found)]
    return [metric for metric in map(find_metric, names) if family in (None, metric.family)]


def family_table(evaluation: Evaluation, results: Results, family: Family) -> Table:
    """One row a system; the metrics of a family for each difficulty. CPT Table II is quality, Table III correctness."""
    metrics = metrics_of(results, family)
    groups = tuple((f"{level} (n = {len(tasks)})", len(metrics)) for level, tasks in evaluation.levels.items())
    rows, records = [], []
    for system in evaluation.systems:
        cells = [system]
        for level, tasks in evaluation.levels.items():
            found = results[system][level]
            cells += [with_interval(metric.name, found) for metric in metrics]
            records += [record(system, level, len(tasks), metric.name, found) for metric in metrics]
        rows.append(tuple(cells))
    columns = ("System", *(metric.heading for _ in evaluation.levels for metric in metrics))
    note = f"n: tasks. {intervals(evaluation)}{_notes(evaluation, family, metrics)}"
    return Table(family.name, family_title(evaluation, family), columns, tuple(rows), tuple(records), 1, groups, note)


def left_out(evaluation: Evaluation) -> str:
    """' Tasks left out: 3 too long for the context.' where there are any, else ''."""
    reasons = evaluation.provenance.get("left_out") or {}
    counts = ", ".join(f"{len(tasks)} {reason}" for reason, tasks in reasons.items() if tasks)
    return f" Tasks left out: {counts}." if counts else ""


def family_title(evaluation: Evaluation, family: Family) -> str:
    """'Code quality: pylint score (0 to 10), 20 samples per task'."""
    return f"{family_of(family, evaluation.scorer).title}, {evaluation.samples_per_task} per task"


def differences_table(evaluation: Evaluation, differences: Results) -> Table:
    """Each other system minus the baseline, paired by task: one row a system and metric, one column a difficulty."""
    rows, records = [], []
    for family in FAMILIES:
        family = family_of(family, evaluation.scorer)
        if metrics := metrics_of(differences, family):
            rows.append((f"{family.heading} ({family.unit}{', percentage points' if family.percent else ''})",))
        for system in evaluation.others:
            for metric in metrics:
                shifts = (change(metric.name, differences[system][level]) for level in evaluation.levels)
                rows.append((system, metric.heading, *shifts))
    for system in evaluation.others:
        for level, tasks in evaluation.levels.items():
            found = differences[system][level]
            records += [record(system, level, len(tasks), metric.name, found) for metric in metrics_of(differences)]
    return Table(
        "differences",
        f"Change against {evaluation.baseline}, paired by task",
        ("System", "Metric", *(f"{level} (n = {len(tasks)})" for level, tasks in evaluation.levels.items())),
        tuple(rows),
        tuple(records),
        labels=2,
        note=f"n: tasks. {intervals(evaluation)}",
    )


def overview_table(evaluation: Evaluation, results: Results, differences: Results, family: Family) -> Table:
    """The figures of `family_table` with one row a difficulty and system: narrow enough for a console.

    Below each system but the baseline stands its change. Length and messages are over all tasks alone.
    """
    metrics = metrics_of(results, family)
    every = family in SCORES
    rows: list[tuple[str, ...]] = []
    for level, tasks in evaluation.levels.items() if every else list(evaluation.levels.items())[-1:]:
        head = [level, str(len(tasks))] if every else []
        for system in evaluation.systems:
            found = results[system][level]
            rows.append((*head, system, *(with_interval(metric.name, found) for metric in metrics)))
            head = [""] * len(head)
            if system in evaluation.others:
                shift = differences[system][level]
                rows.append((*head, "  change", *(change(metric.name, shift) for metric in metrics)))
    labels = ("Difficulty", "Tasks", "System") if every else ("System",)
    columns = (*labels, *(metric.heading for metric in metrics))
    title = family_title(evaluation, family) + ("" if every else f", {len(evaluation.tasks)} tasks")
    against = f" Changes are against {evaluation.baseline}." if evaluation.others else ""
    note = intervals(evaluation) + against + _notes(evaluation, family, metrics)
    return Table("overview", title, columns, tuple(rows), (), labels=len(labels), note=note)


def verdicts_table(evaluation: Evaluation) -> Table:
    """How many programs got each verdict; how many stopped at the length limit; how many held pragmas."""
    rows, records = [], []
    for level, tasks in evaluation.levels.items():
        for system, answers in evaluation.systems.items():
            programs = [program for task in tasks for program in answers[task.id]]
            counts = {status: sum(p.verdict.status == status for p in programs) for status in STATUSES}
            counts["cut_off"] = sum(not p.finished for p in programs)
            counts["with_pragmas"] = sum(p.quality.pragmas > 0 for p in programs)
            rows.append((level, system, str(len(programs)), *(str(count) for count in counts.values())))
            records.append({"difficulty": level, "system": system, "programs": len(programs), **counts})
    columns = ("Difficulty", "System", "Programs", *(s.replace("_", " ") for s in STATUSES), "cut off", "with pragmas")
    held = "pylint pragmas" if evaluation.scorer == PYLINT else "comments to a linter"
    note = f"cut off: stopped by the length limit. with pragmas: held {held}, neutralised before scoring."
    return Table("verdicts", "Verdicts of the tests, in programs", columns, tuple(rows), tuple(records), 2, note=note)


def cost_table(evaluation: Evaluation, results: Results) -> Table:
    """What each system draws for a program that it keeps, beside the first metric of each family over all tasks.

    Systems whose cost was not counted have '–'.
    """
    level = list(evaluation.levels)[-1]
    metrics = [found[0] for family in SCORES if (found := metrics_of(results, family))]
    rows, records = [], []
    for system in evaluation.systems:
        cost, found = evaluation.cost.get(system, {}), results[system][level]
        drawn = [cost.get(unit) for unit in ("programs", "tokens")]
        texts = ["–" if number is None else f"{number:,.1f}".removesuffix(".0") for number in drawn]
        rows.append((system, *texts, *(with_interval(metric.name, found) for metric in metrics)))
        records.append({"system": system, "programs_drawn": drawn[0], "tokens_drawn": drawn[1]}
                       | {metric.name: found[metric.name] for metric in metrics})  # fmt: skip
    columns = ("System", "Programs drawn", "Tokens drawn", *(shown_label(metric) for metric in metrics))
    note = f"Drawn for each program that is kept and judged. {INTERVALS}"
    return Table("cost", "Cost of a kept program", columns, tuple(rows), tuple(records), note=note)


def shown_label(metric: Metric) -> str:
    """'mean pylint score', 'pass@1 (%)'."""
    return f"{metric.label} (%)" if metric.family.percent else metric.label


def pairs_table(evaluation: Evaluation) -> Table:
    """The pairs that each tuned system was trained on, as its training run describes them (pairs/dataset.py)."""
    rows, records, filters = [], [], []
    trained = {system: found for system, found in evaluation.provenance["pair_statistics"].items() if found}
    dropped = {name: None for found in trained.values() for name in found.get("filters", {})}
    for system, found in trained.items():
        counts = found["pairs"]["all"]
        shares = {
            "masked_share": found["masked_share"]["both"],
            "masked_without_message": found["masked_without_message"],
            "empty_masks_better": found["empty_mask_rate"]["better"],
            "empty_masks_worse": found["empty_mask_rate"]["worse"],
        }
        rows.append(
            (
                system,
                *(str(counts[split.lower()]) for split in PAIRS_OF),
                *(f"{100 * share:.1f}" for share in shares.values()),
            )
        )
        records.append({"system": system, **counts, **shares, **dropped, **found.get("filters", {})})
        if "filters" in found:
            said = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found["filters"].items())
            filters.append(f" Filters of {system}: {said}.")
    scorers = {found.get("scorer", PYLINT) for found in trained.values()}
    said_by = " or ".join(sorted(map(label_of, scorers)))
    columns = ("System", *PAIRS_OF, "Masked (%)", "Without message (%)", "Empty, better (%)", "Empty, worse (%)")
    note = (
        "Masked: tokens in which the programs of a pair differ, of all their tokens. Without message: masked tokens on lines "
        f"without a {said_by} message, of all masked ones. Empty: masks of better or worse programs that mark nothing."
    )
    title = "Training pairs by split, and their masks"
    return Table("pairs", title, columns, tuple(rows), tuple(records), note=note + "".join(filters))


def intervals(evaluation: Evaluation) -> str:
    """Say what stands in brackets."""
    alone = any(len(tasks) == 1 for tasks in evaluation.levels.values())
    return INTERVALS + " One task alone has none: both ends are its value." * alone


def _notes(evaluation: Evaluation, family: Family, metrics: Sequence[Metric]) -> str:
    """What a reader of a family's table should know about the tasks and programs behind it."""
    about = "".join(NOTES.get(metric.name, "") for metric in metrics)
    answers = answers_note(evaluation) if family == CORRECTNESS else ""
    robust = [metric for metric in metrics if metric.of_variants is not None]
    if robust:
        several = len({task.variant_of for task in evaluation.tasks})
        about += f" Robust: the {several} tasks that were perturbed, each by its worst perturbation (ReCode)."
    return about + left_out(evaluation) + _uncounted_note(evaluation, metrics) + answers


def _uncounted_note(evaluation: Evaluation, metrics: Sequence[Metric]) -> str:
    """Say which tests a column is about that do not count, and how many tasks have some."""
    names = {metric.name.partition("_pass@")[0] for metric in metrics}
    tasks = {part: sum(bool(t.uncounted_tests) for t in evaluation.tasks if t.uncounted == part) for part in UNCOUNTED}
    return "".join(
        f" {part} P: on {UNCOUNTED_TESTS[part]}, which do not count in P; over the {tasks[part]} tasks that have some."
        for part in UNCOUNTED
        if part in names
    )


def value(metric: str, found: Mapping[str, Any]) -> str:
    """'4.87' for a score, '22.0' for a pass rate (in percent), '–' for none."""
    if found[metric] is None:
        return "–"
    family = find_metric(metric).family
    return f"{found[metric] * family.scale:.{family.digits}f}"


def with_interval(metric: str, found: Mapping[str, Any]) -> str:
    """The value with its interval: '4.87 [4.61, 5.13]'."""
    if found[metric] is None:
        return "–"
    low, high = (value(metric, {metric: end}) for end in found[f"{metric}_ci"])
    return f"{value(metric, found)} [{low}, {high}]"


def change(metric: str, found: Mapping[str, Any]) -> str:
    """'+1.76 [+1.50, +2.01]'; percentage points for a pass rate."""
    if found[metric] is None:
        return "–"
    family = find_metric(metric).family
    ends: Sequence[float] = (found[metric], *found[f"{metric}_ci"])
    shift, low, high = (f"{end * family.scale:+.{family.digits}f}" for end in ends)
    return f"{shift} [{low}, {high}]"


def record(system: str, level: str, tasks: int, metric: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a metric and the ends of its interval, unrounded, as a line of a CSV file."""
    low, high = found[f"{metric}_ci"] or (None, None)
    place = {"system": system, "difficulty": level, "tasks": tasks, "metric": metric}
    return place | {"value": found[metric], "lo": low, "hi": high}
