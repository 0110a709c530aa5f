"""Tables and figures of programs themselves: CPT Table XII, Fig. 8, 12 and 13, SPA Fig. 5."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cptlab.analysis.record.drawing import Drawing
from cptlab.analysis.record.results import Results, figure, read_results
from cptlab.errors import UserError
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.records import DIFFICULTIES, Task
from cptlab.reporting.evaluation import Evaluation, StoredProgram
from cptlab.reporting.figures import add_captions, issue_bars
from cptlab.reporting.issues import best_programs, count_issues, issues_table, ranked_issues, valid_programs
from cptlab.reporting.side_by_side import median_program
from cptlab.reporting.style import STYLE
from cptlab.settings.record_plan import PlannedTable

BEST = "best"  # options.programs: the best program of each task
SHOWN = 2  # tasks of each difficulty in a figure of programs
MOST = 20  # messages in a figure that names none


def issues(table: PlannedTable, record: Path) -> Drawing:
    """Count pylint messages (CPT Table XII), all or those of `options.messages`, in the programs that `options.programs` says:
    best, or at most so many of each task that parse.
    """
    results = read_results(table, record)
    programs, named = table.options.get("programs"), table.options.get("messages")
    evaluation = results.evaluation
    if programs == BEST:
        best = {system: best_programs(evaluation, system) for system in evaluation.systems}
        evaluation = replace(
            evaluation,
            systems={
                s: {t.id: (p,) for t, p in zip(evaluation.tasks, found, strict=True)} for s, found in best.items()
            },
        )
    per_task = programs if isinstance(programs, int) else None
    found = {system: count_issues(valid_programs(evaluation, system, per_task)) for system in evaluation.systems}
    shown = issues_table(evaluation, per_task)
    codes = named or [code for code, _ in ranked_issues(found)][:MOST]
    if named:
        there = {row[0]: row for row in shown.rows if len(row) > 1}
        zeros = ["0"] * (2 * len(evaluation.systems) - 1) + ["–"] * len(evaluation.systems)
        rows = tuple(there.get(code, (code, "", *zeros)) for code in named)
        shown = replace(shown, rows=rows, records=tuple(line for line in shown.records if line["code"] in named))
    if programs == BEST:
        note = f"Occurrences in the program of each task with the highest score ({len(evaluation.tasks)} tasks)."
        shown = replace(shown, note=note)
    seeds = max(map(len, results.seeds.values()))
    note = f"{shown.note} Of the first of {seeds} seeds." if seeds > 1 else shown.note
    shown = replace(shown, name=table.name, title=table.title, note=note)
    symbols = {code: issue.symbol for of_system in found.values() for code, issue in of_system.items()}
    with matplotlib.rc_context(STYLE):
        picture = Figure(figsize=(9, 1.3 + 0.42 * max(2, len(codes))), layout="constrained")
        axes = picture.subplots()
        issue_bars(axes, found, codes)
        axes.set_yticks(range(len(codes)), [f"{code}  {symbols.get(code, '')}" for code in codes])
        axes.set_ylim(len(codes) - 0.5, -0.5)
        add_captions(picture, table.title, f"bars: occurrences, {len(evaluation.tasks)} tasks", axes)
    return Drawing(list(_issue_figures(results, programs)), [shown], {table.name: picture})


def _issue_figures(results: Results, programs: Any) -> Iterator[dict[str, Any]]:
    """Yield the occurrences of each message in all programs of a task, per seed, and the share of messages that do not
    become more frequent, of those that occur.
    """
    tasks, baseline = results.evaluation.tasks, results.evaluation.baseline
    counts = {label: [_counts(of_seed, tasks, programs) for of_seed in seeds] for label, seeds in results.seeds.items()}
    codes = sorted({code for seeds in counts.values() for of_seed in seeds for one in of_seed for code in one})
    tables = {
        label: np.array([[[one[code] for code in codes] for one in of_seed] for of_seed in seeds], dtype=float)
        for label, seeds in counts.items()
    }  # [seeds, tasks, codes]
    for label, values in tables.items():
        for i, code in enumerate(codes):
            found = _total(values[:, :, i], f"count/{code}", len(tasks))
            shift = (
                None
                if label == baseline
                else _total(values[:, :, i] - tables[baseline][:, :, i], f"count/{code}", len(tasks))
            )
            yield figure(label, f"count/{code}", found, len(values), change=shift)
        if label != baseline and codes:
            yield figure(label, NOT_MORE, _not_more(tables[baseline], values), len(values))


NOT_MORE = "share_of_messages_not_more_frequent"


def _counts(programs: Mapping[str, Sequence[Any]], tasks: Sequence[Task], which: Any) -> list[Counter[str]]:
    out = []
    for task in tasks:
        found = [program for program in programs[task.id] if program.parses]
        if which == BEST:
            found = [max(programs[task.id], key=lambda program: program.quality.score)]
        elif isinstance(which, int):
            found = found[:which]
        out.append(Counter(m.id for program in found for m in program.quality.messages if m.id[0] in "ERCW"))
    return out


def _total(values: np.ndarray, metric: str, tasks: int) -> dict[str, Any]:
    """Return the sum over tasks, averaged over seeds, with its interval."""
    low, high = hierarchical_ci(values)
    return {metric: float(values.mean()) * tasks, f"{metric}_ci": [low * tasks, high * tasks], "tasks": tasks}


def _not_more(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return the share of messages that become rarer or stay, as a mean over seeds; the interval is over tasks."""
    tasks = before.shape[1]
    drawn = np.random.default_rng(0).multinomial(tasks, np.full(tasks, 1 / tasks), 2000)
    shares = np.nanmean([_share(drawn @ old, drawn @ new) for old, new in zip(before, after, strict=True)], axis=0)
    value = np.nanmean([_share(old.sum(0)[None], new.sum(0)[None]) for old, new in zip(before, after, strict=True)])
    low, high = np.nanquantile(shares, (0.025, 0.975))
    return {NOT_MORE: float(value), f"{NOT_MORE}_ci": [float(low), float(high)], "tasks": tasks}


def _share(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    occurs = (before + after) > 0
    return ((after <= before) & occurs).sum(1) / np.maximum(1, occurs.sum(1))


def side_by_side(table: PlannedTable, record: Path) -> Drawing:
    """Show programs of two rows for the tasks that `options.rule` chooses: repaired, left, solved. No task is picked by hand."""
    results = read_results(table, record)
    evaluation, rule = results.evaluation, table.options.get("rule")
    if rule not in RULES:
        raise UserError(f"options.rule={rule} of {table.name} cannot be. Choose from {', '.join(RULES)}.")
    other = evaluation.others[0]
    changes = {task.id: _change(evaluation, other, task, rule) for task in evaluation.tasks}
    lines = [f"# {table.title}\n\n{RULES[rule]}\n"]
    ends = (1,) if rule != "solved" else (1, -1)
    for level in [level for level in DIFFICULTIES if level in evaluation.levels] or ["all"]:
        for sign in ends:
            ranked = sorted(evaluation.levels[level], key=lambda task: (-sign * changes[task.id], task.id))  # noqa: B023
            for task in [task for task in ranked if sign * changes[task.id] > 0][:SHOWN]:
                shown = {name: _program(evaluation.systems[name][task.id], rule, (name == other) == (sign > 0))
                         for name in (evaluation.baseline, other)}  # fmt: skip
                lines.append(_shown(task, level, shown))
    if len(lines) == 1:
        lines.append("No task changes so.\n")
    more, less = (sum(sign * change > 0 for change in changes.values()) for sign in (1, -1))
    found = {"tasks_with_this_change": more, "tasks_with_the_opposite": less, "tasks": len(changes)}
    out = [figure(other, name, found, 1) for name in found if name != "tasks"]
    return Drawing(out, texts={f"{table.name}.md": "\n".join(lines)})


RULES = {
    "repaired": "Of each difficulty, the tasks in whose program of median score most pylint messages disappear.",
    "left": "Of each difficulty, the tasks in whose program of median score most pylint messages are left or new.",
    "solved": "Of each difficulty, the tasks whose share of passing programs rises most, and those whose share falls most; of "
    "each, the first program that shows it.",
}


def _change(evaluation: Evaluation, other: str, task: Task, rule: str) -> float:
    before, after = (evaluation.systems[name][task.id] for name in (evaluation.baseline, other))
    if rule == "solved":
        passed = [sum(program.verdict.passed for program in programs) / len(programs) for programs in (before, after)]
        return passed[1] - passed[0]
    messages = [len(median_program(programs).quality.messages) for programs in (before, after)]
    return messages[0] - messages[1] if rule == "repaired" else messages[1]


def _program(programs: Sequence[StoredProgram], rule: str, better: bool) -> StoredProgram:
    if rule != "solved":
        return median_program(programs)
    return next((program for program in programs if program.verdict.passed == better), programs[0])


def _shown(task: Task, level: str, programs: Mapping[str, StoredProgram]) -> str:
    """Return a task and its programs in two columns, with each message at its line. All of it is escaped."""
    cells = []
    for program in programs.values():
        marks: dict[int, list[str]] = {}
        for message in program.quality.messages:
            marks.setdefault(message.line, []).append(f"{message.id} {message.symbol}")
        lines = program.completion.program.split("\n")
        text = "\n".join(
            line + (f"  # ← {', '.join(marks[number])}" if number in marks else "")
            for number, line in enumerate(lines, 1)
        )
        cells.append(f"<td valign='top'><pre>{html.escape(text)}</pre></td>")
    heads = "".join(
        f"<th>{html.escape(name)}: score {p.quality.score:.2f}, {html.escape(p.verdict.status)}</th>"
        for name, p in programs.items()
    )
    prompt = html.escape(task.prompt.text)
    return f"## {html.escape(task.id)} ({level})\n\n<pre>{prompt}</pre>\n\n<table><tr>{heads}</tr>\n<tr>{''.join(cells)}</tr></table>\n"
