"""The messages of several scorers in one score, by severity (arXiv 2506.02211)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cptlab.judging.scorers.combination import BATCH, check_parts, qualities_of_parts
from cptlab.judging.scorers.formulas import SEVERITY_WEIGHTS, checked_weights, decay
from cptlab.judging.scorers.scorer import Items, Scorer
from cptlab.records import Message, Quality
from cptlab.settings.setting import Part, Setting, check_settings

# The paper names five severities and not which message has which: these are ours. A word that is not here is itself.
PYLINT = {"F": "critical", "E": "high", "W": "medium", "R": "low", "C": "info"}
WORDS = {"fatal": "critical", "error": "high", "warning": "medium", "refactor": "low", "note": "low"} | {
    "convention": "info", "style": "info", "none": "info",
}  # fmt: skip
UNSAID = "medium"


@dataclass(frozen=True)
class Weighted:
    """Q = 10 / (1 + W), the paper's reward times 10: W is the sum over all messages of the weight of their severity."""

    scorers: Annotated[Mapping[str, Scorer], Part(many="names")]
    weights: Annotated[
        Mapping[str, float] | None,
        Setting("Weights of severities. null: the paper's, info 0.5, low 1, medium 2.5, high 5, critical 10."),
    ] = None
    name = "weighted"

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "scorers", check_parts(self.scorers))
        object.__setattr__(self, "weights", checked_weights(self.weights, SEVERITY_WEIGHTS, "scorer.weights"))

    def identity(self) -> dict[str, Any]:
        parts = {name: one.identity() for name, one in self.scorers.items()}
        return {"name": self.name, "scorers": parts, "weights": self.weights}

    def check(self) -> None:
        for one in self.scorers.values():
            one.check()

    def stream(self, items: Items, *, workers: int | None, cache: Path | None) -> Iterator[tuple[Any, Quality]]:
        items = iter(items)
        while some := list(itertools.islice(items, BATCH)):
            for (key, _), found in zip(some, qualities_of_parts(self.scorers, some, workers, cache), strict=True):
                first = next(iter(found.values()))
                messages = tuple(
                    replace(message, severity=severity_of(message, one.scorer))
                    for one in found.values()
                    for message in one.messages
                )
                fatal = any(one.fatal for one in found.values())
                whole = not fatal and all(one.statements for one in found.values())
                weights = self.weights or {}
                weighted = sum(weights.get(message.severity, weights[UNSAID]) for message in messages)
                score = decay(weighted) if whole else 0.0
                yield key, Quality(score, first.statements, fatal, messages, _pragmas(found), self.name)


def severity_of(message: Message, scorer: str) -> str:
    """Return the severity of a message, one of the paper's words where that is known."""
    if scorer == "pylint":
        return PYLINT.get(message.id[0], UNSAID)
    return WORDS.get(message.severity, message.severity or UNSAID)


def _pragmas(found: Mapping[str, Quality]) -> int:
    return max(one.pragmas for one in found.values())
