"""Static-analysis feedback: the scorer's messages of the first program, at their lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cptlab.records import Quality, Task, Verdict
from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class LinterMessages:
    """Tells of the messages of a program, whatever its verdict. A program without messages is kept."""

    needs_public_tests: ClassVar[bool] = False
    called: ClassVar[str] = "A first program for the task below"
    most: Annotated[int, Setting("Messages that are named at most, those of the first lines.", at_least=1)] = 10

    def __post_init__(self) -> None:
        check_settings(self)

    def tell(self, task: Task, quality: Quality, verdict: Verdict) -> str | None:
        if not quality.messages:
            return None
        named = sorted(quality.messages, key=lambda one: (one.line, one.id))[: self.most]
        return "\n".join(["A linter remarks on it:", *(f"line {one.line}: {one.symbol} ({one.id})" for one in named)])
