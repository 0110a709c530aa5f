"""A benchmark's tasks by the ids that users and tools give them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cptlab.records import Task

_NUMBER = re.compile(r"[0-9]+")


class TaskIds:
    """Finds a benchmark's task for the id in a row: 'Mbpp/2' in any case, or its number, 2 or '2'."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._by_name = {task.id.casefold(): task.id for task in tasks}
        numbers = [(int(tail), task.id) for task in tasks if _NUMBER.fullmatch(tail := task.id.rpartition("/")[2])]
        times = Counter(number for number, _ in numbers)
        self._by_number = {number: task_id for number, task_id in numbers if times[number] == 1}

    def find(self, given: Any) -> str | None:
        if isinstance(given, str) and (name := self._by_name.get(given.casefold())):
            return name
        if isinstance(given, str) and _NUMBER.fullmatch(given) and len(given) < 20:
            given = int(given)
        return self._by_number.get(given) if type(given) is int else None
