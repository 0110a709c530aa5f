"""The blind review of a record: CPT Table XI and Fig. 11, from the votes of `cptlab review run=RECORD` where there are any.

The pairs are stored beside the tables for that command, and a sheet with its key is written for reviewers on paper. Only
reviewers who have answered every pair are counted, so that nobody stops when the figures please.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from cptlab.analysis.record.drawing import Drawing
from cptlab.analysis.record.results import figure, read_results
from cptlab.metrics.agreement import fleiss_kappa, fleiss_kappa_ci
from cptlab.metrics.statistics import bootstrap_ci
from cptlab.reporting.figures import add_captions
from cptlab.reporting.layout import Table
from cptlab.reporting.style import COLOURS, STYLE
from cptlab.review.pairs import PAIRS, Pair, choose_pairs
from cptlab.review.store import REVIEW_FILE, Review
from cptlab.review.tally import CHOICES, Tally, Votes, finished, number, tally, tally_table
from cptlab.settings.record_plan import PlannedTable

PYLINT = "pylint's score (no person)"


def review(table: PlannedTable, record: Path) -> Drawing:
    """Draw the votes on pairs of programs, one of each row, and what pylint's score says of the same pairs.

    Raises UserError where the record has votes about other pairs.
    """
    evaluation = read_results(table, record).evaluation
    systems = (evaluation.baseline, evaluation.others[0])
    pairs = choose_pairs(evaluation, systems, int(table.options.get("pairs", PAIRS)))
    votes = Review(record / REVIEW_FILE, pairs, systems).votes()
    people = tally(pairs, finished(pairs, votes), systems)
    by_pylint = _by_pylint(pairs, systems)
    shown = _table(table, people, by_pylint, _unfinished(votes, len(pairs)))
    texts = {"review_sheet.md": _sheet(table.title, pairs), "review_key.csv": _key(pairs)}
    figures = [figure(systems[1], metric, by_pylint, 1) for metric in by_pylint if metric.endswith("_by_pylint")]
    return Drawing([*figures, *_figures(people)], [shown], {table.name: _picture(table, people, by_pylint)}, texts)


def _by_pylint(pairs: Sequence[Pair], systems: tuple[str, str]) -> dict[str, Any]:
    """Return the share of pairs in which pylint's score of the second system's program is higher, lower or the same."""
    before, after = systems
    gains = [pair.of(after).score - pair.of(before).score for pair in pairs]
    found: dict[str, Any] = {"tasks": len(pairs)}
    for choice, holds in zip(
        CHOICES, (lambda gain: gain > 0, lambda gain: gain < 0, lambda gain: gain == 0), strict=True
    ):
        values = [float(holds(gain)) for gain in gains]
        found[f"{choice}_by_pylint"] = sum(values) / len(values) if values else None
        found[f"{choice}_by_pylint_ci"] = list(bootstrap_ci(values)) if values else None
    return found


def _figures(people: Tally) -> Iterator[dict[str, Any]]:
    """Yield what the reviewers say; nothing where nobody has finished."""
    if not people.complete:
        return
    found: dict[str, Any] = {"tasks": len(people.votes), "lead_by_reviewers": people.lead}
    found |= {f"{choice}_by_reviewers": people.share(choice) for choice in CHOICES}
    found |= {f"{choice}_by_reviewers_ci": people.share_ci(choice) for choice in CHOICES}
    found |= {"lead_by_reviewers_ci": people.lead_ci, "agreement_of_reviewers": number(people.mean_agreement)}
    found["kappa_of_reviewers"] = number(fleiss_kappa(people.counts))
    found["kappa_of_reviewers_ci"] = [number(end) for end in fleiss_kappa_ci(people.counts)]
    for metric in [name for name in found if name != "tasks" and not name.endswith("_ci")]:
        yield figure(people.after, metric, found, 1) | {"reviewers": len(people.reviewers)}


def _table(table: PlannedTable, people: Tally, by_pylint: dict[str, Any], unfinished: str) -> Table:
    pairs = len(people.votes)
    shown = tally_table(table.name, f"{table.title}, {pairs} pairs", people)
    values = {choice: by_pylint[f"{choice}_by_pylint"] for choice in CHOICES}
    cells = ["–" if value is None else f"{100 * value:.1f}" for value in values.values()]
    records = [
        {"reviewer": "pylint", "metric": choice, "value": value, "lo": None, "hi": None}
        for choice, value in values.items()
    ]
    asked = (
        shown.note if people.complete else "No person has reviewed all pairs yet: cptlab review run=RECORD asks them."
    )
    note = f"{asked}\n{unfinished}{PYLINT}: in percent of the pairs; it is what the model was tuned for."
    if not people.complete:
        return replace(shown, rows=((PYLINT, str(pairs), *cells, "–"),), records=tuple(records), note=note)
    rows = (*shown.rows, (PYLINT, str(pairs), *cells, "–"))
    return replace(shown, rows=rows, records=(*shown.records, *records), note=note)


def _unfinished(votes: Votes, pairs: int) -> str:
    found = [f"{name} ({len(answers)} of {pairs})" for name, answers in votes.items() if len(answers) < pairs]
    return f"Not finished, and not counted: {', '.join(found)}.\n" if found else ""


def _picture(table: PlannedTable, people: Tally, by_pylint: dict[str, Any]) -> Figure:
    """Draw CPT Fig. 11: a group of bars for each reviewer, and one for pylint."""
    judges = [*people.reviewers, "pylint's score"]
    labels = (f"{people.after} better", f"{people.before} better", "no clear difference")
    with matplotlib.rc_context(STYLE):
        picture = Figure(figsize=(max(6.0, 1.6 + 1.3 * len(judges)), 3.2), layout="constrained")
        axes = picture.subplots()
        for i, (choice, label) in enumerate(zip(CHOICES, labels, strict=True)):
            shares = [*(people.of_reviewers(choice) / max(1, len(people.votes))), by_pylint[f"{choice}_by_pylint"] or 0]
            places = [place + 0.27 * (i - 1) for place in range(len(judges))]
            axes.bar(places, [100 * share for share in shares], 0.25, color=COLOURS[i], label=label)
        axes.set_xticks(range(len(judges)), judges)
        axes.set_ylabel("pairs (%)")
        axes.legend(fontsize=8)
        people_say = f"{len(people.reviewers)} reviewers" if people.reviewers else "no person reviewed them"
        add_captions(picture, table.title, f"{len(people.votes)} pairs; {people_say}; pylint's score is no person")
    return picture


def _sheet(title: str, pairs: Sequence[Pair]) -> str:
    """Return the pairs for reviewers on paper. All of it is escaped, and nothing says whose a program is."""
    parts = [f"# {title}\n\nWhich program is of higher quality: left, right, or no clear difference?\n"]
    for place, pair in enumerate(pairs, 1):
        cells = "".join(
            f"<td valign='top'><pre>{html.escape(program.text)}</pre></td>" for program in (pair.left, pair.right)
        )
        parts.append(
            f"## Pair {place}\n\n<pre>{html.escape(pair.prompt)}</pre>\n\n"
            f"<table><tr><th>left</th><th>right</th></tr>\n<tr>{cells}</tr></table>\n"
        )
    return "\n".join(parts)


def _key(pairs: Sequence[Pair]) -> str:
    lines = (f"{place},{pair.task},{pair.left.system},{pair.right.system}" for place, pair in enumerate(pairs, 1))
    return "\n".join(["pair,task,left,right", *lines]) + "\n"
