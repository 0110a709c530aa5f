"""The ledger: what a record says about each claim of the papers.

    holds           every check's 95% interval lies on the claimed side
    does not hold   the interval of some check lies on the other side
    undecided       neither: too few tasks or seeds for an effect of this size
    not asked       the record has no such table, or lacks its rows

Everything is read from the figures.json of the record's tables. Equal records give equal bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.analysis.record.claims import CLAIMS, Beats, Check, Claim, Extreme, Order, Spread
from cptlab.errors import UserError
from cptlab.reporting import tables
from cptlab.storage.run_directory import FIGURES_FILE

HOLDS, FAILS, UNDECIDED, NOT_ASKED = "holds", "does not hold", "undecided", "not asked"
Figure = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """One check that was made: what was compared, the figures as text, and the verdict."""

    what: str
    figures: str
    tasks: int | None
    seeds: int
    verdict: str


@dataclass(frozen=True)
class Finding:
    """What one record says about one claim."""

    claim: Claim
    evidence: tuple[Evidence, ...]
    verdict: str
    command: str


class Record:
    """The figures of a record's tables. Raises UserError where a directory holds none."""

    def __init__(self, directory: Path) -> None:
        self.name = directory.name
        self.tables: dict[str, dict[str, Any]] = {}
        for file in sorted(directory.glob(f"*/{FIGURES_FILE}")):
            self.tables[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
        if not self.tables:
            raise UserError(f"{directory} has no table of a record (*/{FIGURES_FILE}). Make one with cptlab record.")

    def figures(self, table: str) -> list[Figure]:
        return self.tables.get(table, {}).get("figures", [])


def judge_claims(record: Record) -> list[Finding]:
    """Return what a record says about every claim, in their order."""
    return [judge_claim(claim, record) for claim in CLAIMS]


def judge_claim(claim: Claim, record: Record) -> Finding:
    """Return the evidence for a claim, and its verdict: the worst of its checks'."""
    command = record.tables.get(claim.table, {}).get("command", f"cptlab record {claim.table}")
    evidence: list[Evidence] = []
    missing = False
    for check in claim.checks:
        found = list(_evidence(check, claim, record))
        missing = missing or not found
        evidence += found
    verdicts = {one.verdict for one in evidence}
    if FAILS in verdicts:
        verdict = FAILS
    elif missing or not evidence:
        verdict = NOT_ASKED
    else:
        verdict = UNDECIDED if UNDECIDED in verdicts else HOLDS
    return Finding(claim, tuple(evidence), verdict, command)


def _evidence(check: Any, claim: Claim, record: Record) -> Iterator[Evidence]:
    if isinstance(check, Check):
        yield from _changes(check, record.figures(check.table or claim.table))
    elif isinstance(check, Extreme):
        yield from _extremes(check, record.figures(claim.table))
    elif isinstance(check, Order):
        yield from _order(check, record.figures(claim.table))
    elif isinstance(check, Spread):
        yield from _spread(check, record.figures(claim.table))
    elif isinstance(check, Beats):
        yield from _beats(check, record.figures(claim.table))


def _changes(check: Check, figures: Sequence[Figure]) -> Iterator[Evidence]:
    metric = _metric(check.metric, figures)
    chosen = [one for one in figures if one["metric"] == metric and is_row(check.row, one)]
    for one in _at_levels(chosen, check.difficulties):
        judged = _judge(check, one, metric, figures)
        if judged is not None:
            text, verdict = judged
            yield Evidence(_what(one, metric), text, one["tasks"], one["seeds"], verdict)


def _judge(check: Check, one: Figure, metric: str, figures: Sequence[Figure]) -> tuple[str, str] | None:
    """Return a figure as text and the verdict on it; None where it is to change and has no change."""
    if check.expect == "one_peak":
        curve = [other for other in figures if other["row"].startswith(f"{one['row']} ω =")]
        rises = any(other.get("change_lo") is not None and other["change_lo"] > 0 for other in curve)
        verdict = FAILS if one["value"] < 1 else HOLDS if rises else UNDECIDED
        return f"{one['value']:.2f}, and {'some' if rises else 'no'} ω is better than 1", verdict
    value, low, high = one["value"], one["lo"], one["hi"]
    if check.expect == "majority":
        verdict = HOLDS if low > 0.5 else FAILS if high <= 0.5 else UNDECIDED
        return f"{value:.2f} [{low:.2f}, {high:.2f}]", verdict
    if check.expect == "below":
        verdict = HOLDS if high < check.margin else FAILS if low > check.margin else UNDECIDED
        return f"× {value:.2f} [{low:.2f}, {high:.2f}]", verdict
    if metric.endswith("_change") or metric == "lead_by_reviewers":  # a difference of its own
        points = [f"{100 * end:+.1f}" for end in (value, low, high)]
        return f"{points[0]} points [{points[1]}, {points[2]}]", side(low, high, check)
    if one.get("change") is not None:
        return _with_change(one, metric), side(one["change_lo"], one["change_hi"], check)
    return None


def side(low: float | None, high: float | None, check: Check) -> str:
    """Return the verdict on a change whose 95% interval is [low, high]."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return UNDECIDED
    if check.expect == "higher":
        return HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED
    if check.expect == "lower":
        return HOLDS if high < 0 else FAILS if low > 0 else UNDECIDED
    return HOLDS if low >= -check.margin else FAILS if high < 0 else UNDECIDED


def _extremes(check: Extreme, figures: Sequence[Figure]) -> Iterator[Evidence]:
    """The intervals of the rows themselves decide, which is more careful than paired ones; every other row counts."""
    metric = _metric(check.metric, figures)
    mine = [one for one in figures if one["metric"] == metric and is_row(check.row, one)]
    for one in _at_levels(mine, check.difficulties):
        group = one["row"].removeprefix(check.row)  # such as ", kata_lm kata"
        others = [
            other for other in figures
            if other["metric"] == metric and other["difficulty"] == one["difficulty"] and other["row"] != one["row"]
            and any(other["row"] in (row, row + group) for row in check.rows)
        ]  # fmt: skip
        if len(others) < len(set(check.rows) - {check.row}):
            continue  # the row that is missing may be the one
        sign = 1 if check.expect == "highest" else -1
        measure = (
            "change" if one.get("change") is not None and all(o.get("change") is not None for o in others) else "value"
        )
        low, high = ("change_lo", "change_hi") if measure == "change" else ("lo", "hi")
        near, far = (low, high) if sign > 0 else (high, low)
        against = {
            other["row"]: HOLDS if sign * one[near] > sign * other[far]
            else FAILS if sign * one[far] < sign * other[near] else UNDECIDED
            for other in others
        }  # fmt: skip
        verdict = next((worst for worst in (FAILS, UNDECIDED) if worst in against.values()), HOLDS)
        deciding = [other for other in others if against[other["row"]] == verdict]
        best = max(deciding, key=lambda other: sign * other[measure])
        text = f"{_shown(one, metric, measure)}; {best['row']} {_shown(best, metric, measure)}"
        yield Evidence(f"{_what(one, metric)}: {check.expect}", text, one["tasks"], one["seeds"], verdict)


def _order(check: Order, figures: Sequence[Figure]) -> Iterator[Evidence]:
    found = {one["row"]: one for one in figures if one["metric"] == check.metric and one["row"] in check.rows}
    if set(found) != set(check.rows):
        return
    values = [found[row]["value"] for row in check.rows]
    if check.ratio is not None:
        holds, text = abs(values[0] / values[1] / check.ratio - 1) < 0.05, f"{values[0]:,.0f} / {values[1]:,.0f}"
    else:
        holds, text = all(a < b for a, b in zip(values, values[1:])), " < ".join(f"{value:.2f}" for value in values)  # noqa: RUF007
        text = text if holds else text.replace("<", ",")
    what = f"{check.metric.replace('_', ' ')} of {', '.join(check.rows)}"
    yield Evidence(what, text, None, found[check.rows[0]]["seeds"], HOLDS if holds else FAILS)


def _spread(check: Spread, figures: Sequence[Figure]) -> Iterator[Evidence]:
    """The mean range of ω over the models of a benchmark, against that over the benchmarks of a model. Every seed has to agree."""
    omegas = {
        tuple(one["row"].split()): one.get("omegas") or [one["value"]]
        for one in figures
        if one["metric"] == check.metric and len(one["row"].split()) == 2
    }
    ranges = [
        (_mean_range(of_seed, 1), _mean_range(of_seed, 0))
        for of_seed in (dict(zip(omegas, values)) for values in zip(*omegas.values()))
    ]
    known = [(models, benchmarks) for models, benchmarks in ranges if models is not None and benchmarks is not None]
    if not known:
        return
    verdicts = {
        HOLDS if models > benchmarks else FAILS if models < benchmarks else UNDECIDED for models, benchmarks in known
    }
    between = (", ".join(f"{value:.2f}" for value in values) for values in zip(*known))
    text = "range {} between models, {} between benchmarks".format(*between)
    yield Evidence("tuned ω, by seed", text, None, len(known), verdicts.pop() if len(verdicts) == 1 else UNDECIDED)


def _mean_range(omega: Mapping[tuple[str, ...], float], shared: int) -> float | None:
    """Return the mean range of ω among rows with one model (0) or benchmark (1) in common; None without two such."""
    groups = [
        [value for label, value in omega.items() if label[shared] == name] for name in {la[shared] for la in omega}
    ]
    ranges = [max(group) - min(group) for group in groups if len(group) > 1]
    return sum(ranges) / len(ranges) if ranges else None


def _beats(check: Beats, figures: Sequence[Figure]) -> Iterator[Evidence]:
    found = {tuple(one["row"].split()): one for one in figures if one["metric"] == check.metric}
    for small, large in check.models:
        for model, benchmark in sorted(label for label in found if len(label) == 2):
            other = found.get((large, benchmark))
            if model != small or other is None:
                continue
            one = found[model, benchmark]
            plain = {"value": other["before"], "lo": other.get("before_lo"), "hi": other.get("before_hi")}
            if plain["lo"] is None:  # an older record
                bounds, text = (plain["value"],) * 2, tables.value(check.metric, {check.metric: plain["value"]})
            else:
                bounds, text = (plain["lo"], plain["hi"]), _shown(plain, check.metric, "value")
            verdict = HOLDS if one["lo"] > bounds[1] else FAILS if one["hi"] < bounds[0] else UNDECIDED
            text = f"{_shown(one, check.metric, 'value')} against {text}"
            yield Evidence(f"{small} with SPA, {large} without, {benchmark}", text, one["tasks"], one["seeds"], verdict)


def _metric(name: str, figures: Sequence[Figure]) -> str:
    """Return the name of a metric; for pass@max that of the largest k."""
    if name != "pass@max":
        return name
    ks = [int(one["metric"].partition("@")[2]) for one in figures if one["metric"].startswith("pass@")]
    return f"pass@{max(ks, default=1)}"


def is_row(row: str, one: Figure) -> bool:
    """Return whether a figure is of this row of a claim. An empty row is every row."""
    if row == "ω≤1.25":
        return 1 < one.get("omega", 0) <= 1.25
    label = one["row"]
    return row == "" or label == row or label.endswith(f" {row}") or label.startswith(f"{row}, ")


def _at_levels(figures: Sequence[Figure], levels: Sequence[str]) -> list[Figure]:
    """Return the figures at these difficulties; those of all tasks where a benchmark has none of them."""
    chosen = [one for one in figures if one["difficulty"] in levels]
    return chosen or [one for one in figures if one["difficulty"] == "all"]


def _what(one: Figure, metric: str) -> str:
    level = "" if one["difficulty"] == "all" else f", {one['difficulty']}"
    return f"{one['row']}: {metric.replace('_', ' ')}{level}"


def _with_change(one: Figure, metric: str) -> str:
    change = {metric: one["change"], f"{metric}_ci": [one["change_lo"], one["change_hi"]]}
    before = tables.value(metric, {metric: one["value"] - one["change"]})
    return f"{before} → {tables.value(metric, {metric: one['value']})} ({tables.change(metric, change)})"


def _shown(one: Figure, metric: str, measure: str) -> str:
    if measure == "change":
        return tables.change(metric, {metric: one["change"], f"{metric}_ci": [one["change_lo"], one["change_hi"]]})
    return tables.with_interval(metric, {metric: one["value"], f"{metric}_ci": [one["lo"], one["hi"]]})
