"""bandit as a scorer: security (https://bandit.readthedocs.io)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

from cptlab.judging.scorers.formulas import SEVERITY_WEIGHTS, checked_weights, decay, weighted_sum
from cptlab.judging.scorers.limited_process import Finished
from cptlab.judging.scorers.needed import need
from cptlab.judging.scorers.tool import Reading, ToolScorer, Unreadable, read_json
from cptlab.records import Message
from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class Bandit(ToolScorer):
    """Q = 10 / (1 + W): W the weighted messages. A weakness counts the same in a long program."""

    tests: Annotated[Sequence[str], Setting("Tests that count, such as [B602,B608]; []: all.")] = ()
    skips: Annotated[Sequence[str], Setting("Tests that do not count, such as [B101].")] = ()
    confidence: Annotated[
        str, Setting("The least confidence of a message that counts.", choices=("low", "medium", "high"))
    ] = "low"
    weights: Annotated[
        Mapping[str, float] | None,
        Setting(
            "Weights of severities (low, medium, high), or of tests by what their ids begin with. null: 1, 2.5 and 5."
        ),
    ] = None
    name = "bandit"

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "tests", tuple(self.tests))
        object.__setattr__(self, "skips", tuple(self.skips))
        object.__setattr__(self, "weights", checked_weights(self.weights, SEVERITY_WEIGHTS, "scorer.weights"))

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": version("bandit"),
            "tests": sorted(self.tests),
            "skips": sorted(self.skips),
            "confidence": self.confidence,
            "weights": self.weights,
        }

    def check(self) -> None:
        need("bandit", self.name)
        super().check()

    def command(self, names: Sequence[str]) -> list[str]:
        return [
            *(sys.executable, "-m", "bandit", "--quiet", "--exit-zero", "--format=json", "--ignore-nosec"),
            f"--confidence-level={self.confidence}",
            *([f"--tests={','.join(self.tests)}"] if self.tests else []),
            *([f"--skip={','.join(self.skips)}"] if self.skips else []),
            *names,
        ]

    def read(self, finished: Finished) -> Mapping[str, Reading]:
        answer = read_json(finished.output) if finished.code == 0 else None
        if not isinstance(answer, dict) or answer["errors"]:  # a file that it could not read to its end
            raise Unreadable
        found: dict[str, Reading] = {}
        for row in answer["results"]:
            message = Message(row["test_id"], row["test_name"], row["line_number"], row["issue_severity"].lower())
            found.setdefault(row["filename"], Reading()).messages.append(message)
        return found

    def score(self, reading: Reading, statements: int) -> float:
        return decay(weighted_sum(reading.messages, self.weights or {}))
