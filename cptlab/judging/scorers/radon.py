"""radon as a scorer: the maintainability index, or cyclomatic complexity (https://radon.readthedocs.io)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cptlab.judging.scorers.limited_process import Finished
from cptlab.judging.scorers.needed import need
from cptlab.judging.scorers.tool import Reading, ToolScorer, Unreadable, read_json
from cptlab.records import Message
from cptlab.settings.setting import Setting, check_settings

MEASURES = Path(__file__).with_name("radon_measures.py")


@dataclass(frozen=True)
class Radon(ToolScorer):
    """maintainability: Q = MI / 10. complexity: Q = 10 less 1 for each point of the most complex block above 1."""

    measure: Annotated[
        str,
        Setting("What is measured.", choices=("maintainability", "complexity")),
    ] = "maintainability"
    complex_from: Annotated[
        int, Setting("A block of this cyclomatic complexity gets a message; radon's rank C begins at 11.", at_least=2)
    ] = 11

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"radon_{self.measure}"

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": version("radon"), "complex_from": self.complex_from}

    def check(self) -> None:
        need("radon", self.name)
        super().check()

    def command(self, names: Sequence[str]) -> list[str]:
        return [sys.executable, "-I", str(MEASURES), *names]

    def read(self, finished: Finished) -> Mapping[str, Reading]:
        answer = read_json(finished.output) if finished.code == 0 else None
        if not isinstance(answer, dict):
            raise Unreadable
        found = {}
        for file, measured in answer.items():
            complex_ones = [row for row in measured["blocks"] if row["complexity"] >= self.complex_from]
            messages = [
                Message("CC", f"complexity-{row['complexity']}-{row['name']}", row["line"]) for row in complex_ones
            ]
            most = max(row["complexity"] for row in measured["blocks"])
            found[file] = Reading(messages, measured["index"] if self.measure == "maintainability" else most)
        return found

    def score(self, reading: Reading, statements: int) -> float:
        if self.measure == "maintainability":
            return reading.figure / 10
        return max(0.0, 10.0 - (reading.figure - 1))
