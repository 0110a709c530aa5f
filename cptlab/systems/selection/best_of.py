"""Best of n: several programs are drawn for every one kept, and the one with the best score is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cptlab.records import Quality
from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class BestOf:
    """Keeps the program with the best score, the first of equals. No test is run for the choice."""

    draws: Annotated[int, Setting("Programs drawn for every one that is kept.", at_least=1)] = 5

    def __post_init__(self) -> None:
        check_settings(self)

    def choose(self, qualities: Sequence[Quality]) -> int:
        return max(range(len(qualities)), key=lambda i: qualities[i].score)
