"""What the votes of a review say: CPT Table XI, with Fleiss' kappa and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cptlab.metrics.agreement import ABSENT, agreement_with_majority, count_answers, fleiss_kappa, fleiss_kappa_ci
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.reporting.layout import Table
from cptlab.review.pairs import Pair

CHOICES = ("better", "worse", "same")  # the second system's program against the first's
AVERAGE = "Average"
Votes = Mapping[str, Mapping[int, str]]  # reviewer -> number of a pair, from 1 -> left, right or same
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Tally:
    """The votes of all reviewers on all pairs.

    `votes` is [pairs, reviewers], 0 to 2 as in CHOICES or ABSENT. `before` and `after` are the systems. Shares and
    agreement are nan for a reviewer without votes.
    """

    before: str
    after: str
    reviewers: tuple[str, ...]
    votes: np.ndarray

    @property
    def answered(self) -> np.ndarray:
        """How many pairs each reviewer has answered, [reviewers]."""
        return (self.votes != ABSENT).sum(axis=0)

    @property
    def complete(self) -> bool:
        """Whether there are reviewers, and every one of them has answered every pair."""
        return self.votes.size > 0 and bool((self.votes != ABSENT).all())

    def of_reviewers(self, choice: str) -> np.ndarray:
        """How often each reviewer gave this answer, [reviewers]."""
        return (self.votes == CHOICES.index(choice)).sum(axis=0)

    def share(self, choice: str) -> float:
        """The share of a choice in a reviewer's answers, averaged over the reviewers who gave any."""
        given = self.answered > 0
        return float((self.of_reviewers(choice)[given] / self.answered[given]).mean()) if given.any() else float("nan")

    def share_ci(self, choice: str) -> Interval:
        """The interval of `share` over reviewers and pairs; None while someone has not finished."""
        return hierarchical_ci((self.votes.T == CHOICES.index(choice)).astype(float)) if self.complete else None

    @property
    def lead(self) -> float:
        """The share of better minus that of worse."""
        return self.share("better") - self.share("worse")

    @property
    def lead_ci(self) -> Interval:
        """The interval of `lead` over reviewers and pairs; None while someone has not finished."""
        signs = (self.votes.T == 0).astype(float) - (self.votes.T == 1)
        return hierarchical_ci(signs) if self.complete else None

    @property
    def agreement(self) -> np.ndarray:
        """Each reviewer's agreement with the majority, [reviewers]; nan without a pair that someone else has answered, too."""
        return agreement_with_majority(self.votes, len(CHOICES))

    @property
    def mean_agreement(self) -> float:
        found = self.agreement[~np.isnan(self.agreement)]
        return float(found.mean()) if found.size else float("nan")

    @property
    def counts(self) -> np.ndarray:
        """The answers to each pair, [pairs, choices]."""
        return count_answers(self.votes, len(CHOICES))


def tally(pairs: Sequence[Pair], votes: Votes, systems: tuple[str, str]) -> Tally:
    """Count the votes. `systems` are the first, and the one that is better or worse."""
    before, after = systems
    found = np.full((len(pairs), len(votes)), ABSENT)
    for column, answers in enumerate(votes.values()):
        for number, answer in answers.items():
            chosen = {"left": pairs[number - 1].left.system, "right": pairs[number - 1].right.system}.get(answer)
            found[number - 1, column] = {after: 0, before: 1, None: 2}[chosen]
    return Tally(before, after, tuple(votes), found)


def finished(pairs: Sequence[Pair], votes: Votes) -> dict[str, Mapping[int, str]]:
    """Return the votes of the reviewers who have answered every pair."""
    return {name: answers for name, answers in votes.items() if len(answers) == len(pairs)}


def tally_table(name: str, title: str, found: Tally) -> Table:
    """Return CPT Table XI: a row for each reviewer, and their average."""
    pairs, people = found.votes.shape
    counts = [found.of_reviewers(choice) for choice in CHOICES]
    rows = [
        (reviewer, f"{found.answered[i]} of {pairs}", *(str(of[i]) for of in counts), _percent(found.agreement[i]))
        for i, reviewer in enumerate(found.reviewers)
    ]
    shares = [_with_interval(found.share(choice), found.share_ci(choice)) for choice in CHOICES]
    rows.append((AVERAGE, "", *shares, _percent(found.mean_agreement)))
    columns = (
        "Reviewer",
        "Pairs",
        f"{found.after} better",
        f"{found.before} better",
        "No clear difference",
        "Agreement",
    )
    return Table(name, title, columns, tuple(rows), tuple(_records(found)), note=_note(found))


def _records(found: Tally) -> list[dict[str, Any]]:
    """Return the lines of the CSV file: reviewer, metric, value and interval."""
    lines = []
    for i, reviewer in enumerate(found.reviewers):
        values: dict[str, float] = {"pairs": int(found.answered[i])}
        values |= {choice: int(found.of_reviewers(choice)[i]) for choice in CHOICES} | {"agreement": found.agreement[i]}
        lines += [_record(reviewer, metric, value) for metric, value in values.items()]
    lines += [_record(AVERAGE, choice, found.share(choice), found.share_ci(choice)) for choice in CHOICES]
    lines.append(_record(AVERAGE, "agreement", found.mean_agreement))
    kappa = fleiss_kappa(found.counts)
    lines.append(_record("all", "fleiss_kappa", kappa, fleiss_kappa_ci(found.counts)))
    return lines


def _record(reviewer: str, metric: str, value: float, interval: Interval = None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"reviewer": reviewer, "metric": metric, "value": number(value), "lo": number(low), "hi": number(high)}


def number(value: float | None) -> float | None:
    """Return a number for JSON and CSV: None for nan."""
    return None if value is None or np.isnan(value) else value


def _note(found: Tally) -> str:
    kappa, (low, high) = fleiss_kappa(found.counts), fleiss_kappa_ci(found.counts)
    shared = int((found.counts.sum(axis=1) >= 2).sum())
    if shared == 0:
        said = "Fleiss' kappa and agreement need two reviewers of one pair."
    elif np.isnan(kappa):
        said = f"Fleiss' kappa: none, as all answers to the {shared} pairs are the same."
    else:
        said = f"Fleiss' kappa: {kappa:.2f} [{low:.2f}, {high:.2f}], over {shared} pairs that two or more answered."
    note = (
        f"{said}\nAgreement: of a reviewer's answers to those pairs, the share that is what most reviewers gave, in percent; "
        "where several tie, nobody agrees.\nAverage: mean of the reviewers' shares, in percent. "
    )
    if found.complete:
        return f"{note}In brackets: 95% bootstrap intervals, of shares over reviewers and pairs, of kappa over pairs."
    return f"{note}Not everyone has answered every pair, so shares have no interval; that of kappa is over pairs."


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def _with_interval(value: float, interval: Interval) -> str:
    return _percent(value) + (f" [{_percent(interval[0])}, {_percent(interval[1])}]" if interval else "")
