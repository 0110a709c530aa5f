"""The tables of an evaluation, in the shape of Comparative Prefix-Tuning's Tables II, III and XII.

`results[system][level][metric]` and `differences[system][level][metric]` are those of `cptlab.metrics.summary`; a
level is a difficulty or 'all'. Every mean carries its 95% bootstrap interval over tasks in square brackets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cptlab.errors import UserError
from cptlab.reporting.evaluation import Evaluation, JudgedProgram
from cptlab.reporting.layout import Table

QUALITY = {"pylint_mean": "Mean", "pylint_max": "Max", "pylint_min": "Min"}
STATUSES = ("passed", "failed", "error", "timeout", "memory", "crashed", "not_parsed")
CATEGORIES = {
    "E": "[E] Error for important programming issues (i.e. most probably bug)",
    "R": "[R] Refactor for a “good practice” metric violation",
    "C": "[C] Convention for coding standard violation",
    "W": "[W] Warning for stylistic problems, or minor programming issues",
}
INTERVALS = "In brackets: 95% bootstrap interval over tasks."

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


def pass_at(results: Results) -> dict[str, str]:
    """The pass@k metrics that every system and level has, with their headings, k ascending.

    {'pass@1': 'P@1', 'pass@5': 'P@5', ...}, then those under further rules: 'official_pass@1': 'official P@1'.
    """
    found = [set(metrics) for levels in results.values() for metrics in levels.values()]
    names = [name.partition("pass@") for name in set.intersection(*found) if not name.endswith("_ci")]
    names = sorted((rule, int(k)) for rule, is_rate, k in names if is_rate)
    return {f"{rule}pass@{k}": f"{rule.replace('_', ' ')}P@{k}" for rule, k in names}


def quality_table(evaluation: Evaluation, results: Results) -> Table:
    """CPT Table II: one row a system; Mean, Max and Min pylint score of each difficulty."""
    title = f"Code quality: pylint score (0 to 10), {evaluation.samples_per_task} per task"
    return _metric_table(evaluation, results, QUALITY, "quality", title)


def correctness_table(evaluation: Evaluation, results: Results) -> Table:
    """CPT Table III: one row a system; pass@k of each difficulty, in percent."""
    title = f"Functional correctness: pass@k in percent, {evaluation.samples_per_task} per task"
    return _metric_table(evaluation, results, pass_at(results), "correctness", title)


def _metric_table(evaluation: Evaluation, results: Results, metrics: Mapping[str, str], name: str, title: str) -> Table:
    groups = tuple((f"{level} (n = {len(tasks)})", len(metrics)) for level, tasks in evaluation.levels.items())
    rows = [
        (system, *(with_interval(metric, results[system][level]) for level in evaluation.levels for metric in metrics))
        for system in evaluation.systems
    ]
    records = [
        _record(system, level, len(tasks), metric, found[metric], found[f"{metric}_ci"])
        for system in evaluation.systems
        for level, tasks in evaluation.levels.items()
        for found in [results[system][level]]
        for metric in metrics
    ]
    columns = ("System", *(heading for _ in evaluation.levels for heading in metrics.values()))
    return Table(name, title, columns, tuple(rows), tuple(records), groups=groups, note=f"n: tasks. {INTERVALS}")


def differences_table(evaluation: Evaluation, results: Results, differences: Results) -> Table:
    """Each other system minus the baseline, paired by task."""
    metrics = QUALITY | pass_at(results)
    rows, records = [], []
    for system in evaluation.others:
        for level, tasks in evaluation.levels.items():
            found = differences[system][level]
            rows.append((system, level, str(len(tasks)), *(change(metric, found) for metric in metrics)))
            for metric in metrics:
                records.append(_record(system, level, len(tasks), metric, found[metric], found[f"{metric}_ci"]))
    groups = (("pylint score", len(QUALITY)), ("pass@k, percentage points", len(metrics) - len(QUALITY)))
    return Table(
        "differences",
        f"Change against {evaluation.baseline}, paired by task",
        ("System", "Difficulty", "Tasks", *metrics.values()),
        tuple(rows),
        tuple(records),
        labels=3,
        groups=groups,
        note=INTERVALS,
    )


def overview_table(
    evaluation: Evaluation, results: Results, differences: Results, metrics: Mapping[str, str], title: str
) -> Table:
    """The same figures as the tables above with one row a difficulty and system: narrow enough for a console."""
    rows: list[tuple[str, ...]] = []
    for level, tasks in evaluation.levels.items():
        head = [level, str(len(tasks))]
        for system in evaluation.systems:
            rows.append((*head, system, *(with_interval(metric, results[system][level]) for metric in metrics)))
            head = ["", ""]
        for system in evaluation.others:
            label = "change" if len(evaluation.others) == 1 else f"{system}, change"
            rows.append((*head, label, *(change(metric, differences[system][level]) for metric in metrics)))
    columns = ("Difficulty", "Tasks", "System", *metrics.values())
    return Table("overview", title, columns, tuple(rows), (), labels=3, note=INTERVALS)


def verdicts_table(evaluation: Evaluation) -> Table:
    """How many programs got each verdict; how many stopped at the length limit; how many held pylint pragmas."""
    rows, records = [], []
    for level, tasks in evaluation.levels.items():
        for system, answers in evaluation.systems.items():
            samples = [sample for task in tasks for sample in answers[task.id]]
            counts = {status: sum(s.verdict.status == status for s in samples) for status in STATUSES}
            counts["cut_off"] = sum(not s.finished for s in samples)
            counts["with_pragmas"] = sum(s.quality.pragmas > 0 for s in samples)
            rows.append((level, system, str(len(samples)), *(str(count) for count in counts.values())))
            records.append({"difficulty": level, "system": system, "programs": len(samples), **counts})
    columns = ("Difficulty", "System", "Programs", *(s.replace("_", " ") for s in STATUSES), "cut off", "with pragmas")
    note = "cut off: stopped by the length limit. with pragmas: held pylint pragmas, neutralised before scoring."
    return Table("verdicts", "Verdicts of the tests, in programs", columns, tuple(rows), tuple(records), 2, note=note)


@dataclass(frozen=True)
class Issue:
    """One pylint message id in a set of programs: occurrences, programs that have it, and their mean score."""

    symbol: str
    count: int
    programs: int
    score: float


def valid_samples(evaluation: Evaluation, system: str, per_task: int | None = None) -> list[JudgedProgram]:
    """The programs that parse, in stored order; of each task at most the first `per_task` of them (None: all)."""
    if per_task is not None and per_task < 1:
        raise UserError(f"Issues cannot be counted in {per_task} programs per task. Take 1 or more, or none for all.")
    found = []
    for task in evaluation.tasks:
        found += [sample for sample in evaluation.systems[system][task.id] if sample.parses][:per_task]
    return found


def best_samples(evaluation: Evaluation, system: str) -> list[JudgedProgram]:
    """Of each task the sample with the highest pylint score, the first of equals (the programs of CPT Fig. 8)."""
    return [max(samples, key=lambda sample: sample.quality.score) for samples in evaluation.systems[system].values()]


def count_issues(samples: Sequence[JudgedProgram]) -> dict[str, Issue]:
    """The issues of categories E, R, C and W in these programs, by message id."""
    symbols: dict[str, str] = {}
    counts: dict[str, int] = {}
    scores: dict[str, list[float]] = {}
    for sample in samples:
        for message in sample.quality.messages:
            if message.id[0] in CATEGORIES:
                symbols[message.id] = message.symbol
                counts[message.id] = counts.get(message.id, 0) + 1
        for code in {message.id for message in sample.quality.messages} & counts.keys():
            scores.setdefault(code, []).append(sample.quality.score)
    return {code: Issue(symbols[code], counts[code], len(scores[code]), fmean(scores[code])) for code in sorted(counts)}


def issues_table(evaluation: Evaluation, per_task: int | None = None) -> Table:
    """CPT Table XII: occurrences of each pylint issue, their change, and the mean score of the programs that have it.

    Counts run over the programs that parse: all of them, or the first `per_task` of each task (the paper: "up to ten
    valid code solutions per task"). An issue that occurs nowhere has the mean score '–' (the paper prints 0.00).
    """
    samples = {system: valid_samples(evaluation, system, per_task) for system in evaluation.systems}
    issues = {system: count_issues(found) for system, found in samples.items()}
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Any]] = []
    for category, heading in CATEGORIES.items():
        codes = {code for found in issues.values() for code in found if code[0] == category}
        if codes:
            rows.append((heading,))
        for code in sorted(codes, key=lambda code: (-_count(issues[evaluation.baseline], code), code)):
            symbol = next(found[code].symbol for found in issues.values() if code in found)
            counts = {system: _count(found, code) for system, found in issues.items()}
            changes = [arrow(counts[system] - counts[evaluation.baseline]) for system in evaluation.others]
            means = [f"{found[code].score:.2f}" if code in found else "–" for found in issues.values()]
            rows.append((code, symbol, *(str(count) for count in counts.values()), *changes, *means))
            record = {"category": category, "code": code, "symbol": symbol}
            for system, found in issues.items():
                record[f"{system}_count"] = counts[system]
                record[f"{system}_programs"] = found[code].programs if code in found else 0
                record[f"{system}_mean_score"] = found[code].score if code in found else None
            records.append(record)
    columns = (
        *("Code", "Issue"),
        *(f"{system} count" for system in evaluation.systems),
        *("Change" if len(evaluation.others) == 1 else f"{system} change" for system in evaluation.others),
        *(f"{system} mean score" for system in evaluation.systems),
    )
    sizes = ", ".join(f"{len(found)} {system}" for system, found in samples.items())
    kept = "all programs that parse" if per_task is None else f"the first {per_task} programs of each task that parse"
    note = f"Occurrences in {kept} ({sizes}; {len(evaluation.tasks)} tasks). Mean score: of the programs that have the issue."
    title = "Pylint issues in the generated programs"
    return Table("issues", title, columns, tuple(rows), tuple(records), labels=2, note=note)


def top_issues(evaluation: Evaluation, table: Table, limit: int) -> Table:
    """The rows of an issues table with the most occurrences in any system, most first, without category headings."""
    counts = slice(2, 2 + len(evaluation.systems))
    rows = sorted((r for r in table.rows if len(r) > 1), key=lambda r: (-max(int(n) for n in r[counts]), r[0]))
    title = f"{table.title}: the {min(limit, len(rows))} most frequent of {len(rows)}"
    return Table(table.name, title, table.columns, tuple(rows[:limit]), (), table.labels, note=table.note)


def value(metric: str, found: Mapping[str, Any]) -> str:
    """'4.87' for a score, '22.0' for a pass rate (in percent)."""
    scale, digits = _unit(metric)
    return f"{found[metric] * scale:.{digits}f}"


def with_interval(metric: str, found: Mapping[str, Any]) -> str:
    """The value with its interval: '4.87 [4.61, 5.13]'."""
    low, high = (value(metric, {metric: end}) for end in found[f"{metric}_ci"])
    return f"{value(metric, found)} [{low}, {high}]"


def change(metric: str, found: Mapping[str, Any]) -> str:
    """'+1.76 [+1.50, +2.01]'; percentage points for a pass rate."""
    scale, digits = _unit(metric)
    shift, low, high = (f"{end * scale:+.{digits}f}" for end in (found[metric], *found[f"{metric}_ci"]))
    return f"{shift} [{low}, {high}]"


def arrow(number: int) -> str:
    """'↓2', '↑84' or '0', as CPT Table XII prints changes."""
    return f"↓{-number}" if number < 0 else f"↑{number}" if number else "0"


def _unit(metric: str) -> tuple[int, int]:
    return (100, 1) if "pass@" in metric else (1, 2)


def _count(issues: Mapping[str, Issue], code: str) -> int:
    return issues[code].count if code in issues else 0


def _record(system: str, level: str, tasks: int, metric: str, mean: float, ends: Sequence[float]) -> dict[str, Any]:
    place = {"system": system, "difficulty": level, "tasks": tasks, "metric": metric}
    return place | {"value": mean, "lo": ends[0], "hi": ends[1]}
