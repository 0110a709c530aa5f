"""Static-analysis feedback: the messages of the scorer, at their lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cptlab.records import Quality, Task, Verdict
from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class LinterMessages:
    """Tells what the scorer remarks on in a program. The second answer counts, better or not."""

    needs_public_tests: ClassVar[bool] = False
    most: Annotated[int, Setting("Messages that are named at most, those of the first lines.", at_least=1)] = 10

    def __post_init__(self) -> None:
        check_settings(self)

    def tell(self, task: Task, quality: Quality, verdict: Verdict) -> str | None:
        if not quality.messages:
            return None
        named = sorted(quality.messages, key=lambda one: (one.line, one.id))[: self.most]
        return "A linter remarks on it:\n" + "\n".join(f"line {one.line}: {one.symbol} ({one.id})" for one in named)
