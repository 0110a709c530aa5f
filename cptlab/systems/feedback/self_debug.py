"""Self-debugging (arXiv 2304.05128, its feedback from unit tests): the failed public test and its outcome."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from cptlab.records import Quality, Task, Verdict
from cptlab.tasks.own_tests import shown_tests


@dataclass(frozen=True)
class SelfDebug:
    """Tells of the first public test that a program fails. Nothing is said about hidden tests."""

    needs_public_tests: ClassVar[bool] = True
    called: ClassVar[str] = "A wrong program for the task below"

    def tell(self, task: Task, quality: Quality, verdict: Verdict) -> str | None:
        if verdict.public_passed == verdict.public_total:
            return None
        place = re.match(r"public test (\d+): (.*)", verdict.reason, re.DOTALL)
        if place is None:  # it passed when it was run again for the reason: chance decides about it
            return None
        test = shown_tests([task.public_tests[int(place[1]) - 1]], task.entry_point)
        return f"It fails this test:\n{test.strip()}\nOutcome: {place[2]}"
