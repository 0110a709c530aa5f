"""Issues in the programs of an evaluation: counts by message of the scorer, in the shape of CPT Table XII."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.definitions import PYLINT, capitalised, label_of
from cptlab.reporting.evaluation import Evaluation, StoredProgram
from cptlab.reporting.layout import Table

CATEGORIES = {
    "E": "[E] Error for important programming issues (i.e. most probably bug)",
    "R": "[R] Refactor for a “good practice” metric violation",
    "C": "[C] Convention for coding standard violation",
    "W": "[W] Warning for stylistic problems, or minor programming issues",
}


EVERY = ""  # the one category of messages of other scorers


@dataclass(frozen=True)
class Issue:
    """One message id in a set of programs: occurrences, programs that have it, and their mean score."""

    symbol: str
    count: int
    programs: int
    score: float


def category_of(code: str, scorer: str) -> str | None:
    """Return the category of a message: one of CATEGORIES for pylint's, None for those that do not count there."""
    if scorer != PYLINT:
        return EVERY
    return code[0] if code[0] in CATEGORIES else None


def valid_programs(evaluation: Evaluation, system: str, per_task: int | None = None) -> list[StoredProgram]:
    """Return the programs that parse, in stored order; of each task at most the first `per_task` (None: all)."""
    if per_task is not None and per_task < 1:
        raise UserError(f"Issues cannot be counted in {per_task} programs per task. Take 1 or more, or none for all.")
    found = []
    for task in evaluation.tasks:
        found += [program for program in evaluation.systems[system][task.id] if program.parses][:per_task]
    return found


def best_programs(evaluation: Evaluation, system: str) -> list[StoredProgram]:
    """Return the program of each task with the highest score, the first of equals (those of CPT Fig. 8)."""
    answers = evaluation.systems[system].values()
    return [max(programs, key=lambda program: program.quality.score) for programs in answers]


def count_issues(programs: Sequence[StoredProgram]) -> dict[str, Issue]:
    """Count the issues in these programs, by message id: of pylint those of categories E, R, C and W."""
    symbols: dict[str, str] = {}
    counts: dict[str, int] = {}
    scores: dict[str, list[float]] = {}
    for program in programs:
        for message in program.quality.messages:
            if category_of(message.id, program.quality.scorer) is not None:
                symbols[message.id] = message.symbol
                counts[message.id] = counts.get(message.id, 0) + 1
        for code in {message.id for message in program.quality.messages} & counts.keys():
            scores.setdefault(code, []).append(program.quality.score)
    return {code: Issue(symbols[code], counts[code], len(scores[code]), fmean(scores[code])) for code in sorted(counts)}


def issues_table(evaluation: Evaluation, per_task: int | None = None) -> Table:
    """CPT Table XII: occurrences of each issue, their change, and the mean score of the programs that have it.

    Counts run over the programs that parse: all of them, or the first `per_task` of each task (the paper: "up to ten
    valid code solutions per task"). An issue that occurs nowhere has the mean score '–' (the paper prints 0.00).
    """
    programs = {system: valid_programs(evaluation, system, per_task) for system in evaluation.systems}
    issues = {system: count_issues(found) for system, found in programs.items()}
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Any]] = []
    scorer = evaluation.scorer
    for category, heading in (CATEGORIES if scorer == PYLINT else {EVERY: ""}).items():
        codes = {code for found in issues.values() for code in found if category_of(code, scorer) == category}
        if codes and heading:
            rows.append((heading,))
        for code in sorted(codes, key=lambda code: (-_count(issues[evaluation.baseline], code), code)):
            symbol = next(found[code].symbol for found in issues.values() if code in found)
            counts = {system: _count(found, code) for system, found in issues.items()}
            changes = [arrow(counts[system] - counts[evaluation.baseline]) for system in evaluation.others]
            means = [f"{found[code].score:.2f}" if code in found else "–" for found in issues.values()]
            rows.append((code, symbol, *(str(count) for count in counts.values()), *changes, *means))
            record: dict[str, Any] = {"category": category, "code": code, "symbol": symbol}
            for system, found in issues.items():
                record[f"{system}_count"] = counts[system]
                record[f"{system}_programs"] = found[code].programs if code in found else 0
                record[f"{system}_mean_score"] = found[code].score if code in found else None
            records.append(record)
    systems = len(evaluation.systems)
    groups = [("Occurrences", systems), (f"Change against {evaluation.baseline}", systems - 1), ("Mean score", systems)]
    return Table(
        "issues",
        f"{capitalised(label_of(scorer))} issues in the generated programs",
        ("Code", "Issue", *evaluation.systems, *evaluation.others, *evaluation.systems),
        tuple(rows),
        tuple(records),
        labels=2,
        groups=tuple(group for group in groups if group[1]),
        note=f"{_counted_programs(evaluation, programs, per_task)} Mean score: of the programs that have the issue.",
    )


def top_issues_table(evaluation: Evaluation, limit: int, per_task: int | None = None) -> Table:
    """The issues with the most occurrences in any system, most first, with changes; narrow enough for a console."""
    programs = {system: valid_programs(evaluation, system, per_task) for system in evaluation.systems}
    issues = {system: count_issues(found) for system, found in programs.items()}
    rows = []
    for code, symbol in ranked_issues(issues)[:limit]:
        before, cells = _count(issues[evaluation.baseline], code), []
        for system, found in issues.items():
            count = _count(found, code)
            cells.append(f"{count}" if system == evaluation.baseline else f"{count} ({arrow(count - before)})")
        rows.append((code, symbol, *cells))
    said_by = capitalised(label_of(evaluation.scorer))
    title = f"{said_by} issues in the generated programs: the {len(rows)} most frequent of {len(ranked_issues(issues))}"
    note = _counted_programs(evaluation, programs, per_task)
    if evaluation.others:
        note += f" In brackets: change against {evaluation.baseline}."
    return Table("top_issues", title, ("Code", "Issue", *evaluation.systems), tuple(rows), (), labels=2, note=note)


def ranked_issues(issues: Mapping[str, Mapping[str, Issue]]) -> list[tuple[str, str]]:
    """Return (code, symbol) of every issue, the one with the most occurrences in any system first."""
    symbols = {code: issue.symbol for found in issues.values() for code, issue in found.items()}
    most = {code: max(_count(found, code) for found in issues.values()) for code in symbols}
    return sorted(symbols.items(), key=lambda item: (-most[item[0]], item[0]))


def _counted_programs(
    evaluation: Evaluation, programs: Mapping[str, Sequence[StoredProgram]], per_task: int | None
) -> str:
    sizes = ", ".join(f"{len(found)} {system}" for system, found in programs.items())
    kept = "all programs that parse" if per_task is None else f"the first {per_task} programs of each task that parse"
    return f"Occurrences in {kept} ({sizes}; {len(evaluation.tasks)} tasks)."


def arrow(number: int) -> str:
    """'↓2', '↑84' or '0', as CPT Table XII prints changes."""
    return f"↓{-number}" if number < 0 else f"↑{number}" if number else "0"


def _count(issues: Mapping[str, Issue], code: str) -> int:
    return issues[code].count if code in issues else 0
