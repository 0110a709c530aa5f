"""ruff as a scorer: any of its rules can be the aim, such as those of a team (https://docs.astral.sh/ruff)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

from cptlab.judging.scorers.formulas import checked_weights, density, weighted_sum
from cptlab.judging.scorers.limited_process import Finished
from cptlab.judging.scorers.tool import Reading, ToolScorer, Unreadable, read_json
from cptlab.records import Message
from cptlab.settings.setting import Setting, check_settings

# What beginners' programs are told by reviewers, without layout, naming, docstrings, imports and annotations, as pylint's score
SELECT = ("E7", "F", "B", "C4", "C90", "PIE", "PL", "RET", "SIM", "UP", "PERF", "TRY", "RUF")
IGNORE = ("F401", "PLC0415", "PLR2004", "RUF001", "RUF002", "RUF003", "RUF012", "TRY003", "UP006", "UP007", "UP035")
WEIGHTS = {"F6": 5.0, "F7": 5.0, "F81": 5.0, "F82": 5.0, "PLE": 5.0}  # what pylint calls errors


@dataclass(frozen=True)
class Ruff(ToolScorer):
    """Q = max(0, 10 - 10 W / S): W the weighted messages, S the statements."""

    select: Annotated[Sequence[str], Setting("Rules that count, as in `ruff check --select`.")] = SELECT
    ignore: Annotated[Sequence[str], Setting("Rules that do not count, as in `ruff check --ignore`.")] = IGNORE
    weights: Annotated[
        Mapping[str, float] | None,
        Setting(
            "Weights of rules by what their codes begin with; the longest that fits counts, else 1. null: 5 for what pylint "
            "calls errors."
        ),
    ] = None
    preview: Annotated[bool, Setting("Whether rules in preview count too.")] = False
    name = "ruff"

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "select", tuple(self.select))
        object.__setattr__(self, "ignore", tuple(self.ignore))
        object.__setattr__(
            self, "weights", checked_weights(self.weights, {} if self.weights else WEIGHTS, "scorer.weights")
        )

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": version("ruff"),
            "select": sorted(self.select),
            "ignore": sorted(self.ignore),
            "weights": self.weights,
            "preview": self.preview,
        }

    def command(self, names: Sequence[str]) -> list[str]:
        return [
            *(sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--quiet", "--exit-zero", "--no-fix"),
            *("--output-format=json", "--ignore-noqa", f"--target-version=py3{sys.version_info.minor}"),
            f"--{'' if self.preview else 'no-'}preview",
            f"--select={','.join(self.select)}",
            *([f"--ignore={','.join(self.ignore)}"] if self.ignore else []),
            *names,
        ]

    def read(self, finished: Finished) -> Mapping[str, Reading]:
        if finished.code != 0 or "Panicked" in finished.errors:
            raise Unreadable
        found: dict[str, Reading] = {}
        for row in read_json(finished.output):
            code = row["code"] or "invalid-syntax"
            message = Message(code, row.get("name") or code, row["location"]["row"])
            found.setdefault(row["filename"], Reading()).messages.append(message)
        return found

    def score(self, reading: Reading, statements: int) -> float:
        return density(weighted_sum(reading.messages, self.weights or {}), statements)
