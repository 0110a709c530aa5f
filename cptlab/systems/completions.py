"""Files of programs that other tools made: check them from end to end, and read them row by row.

Their forms stand in completion_formats.py. The whole file is checked before anything is judged (judge_completions.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.systems.completion_formats import rows_of
from cptlab.tasks.task_ids import TaskIds


@dataclass(frozen=True)
class CompletionsFile:
    """A file of completions that was checked. `counts`: the number of programs of each task that has any.

    `excluded`: the number of programs for tasks that are left out of the benchmark.
    """

    path: Path
    digest: str
    rows: int
    counts: dict[str, int]
    excluded: int = 0

    def facts(self) -> dict[str, Any]:
        """Return what metrics.json says of the file."""
        path, tasks = str(self.path.resolve()), len(self.counts)
        return {"path": path, "rows": self.rows, "tasks": tasks, "excluded": self.excluded, "fingerprint": self.digest}

    def coverage(self, benchmark: str, tasks: Sequence[Task]) -> str:
        """Say in a sentence how many tasks have rows, of those in the splits that any of them is in."""
        splits = {task.split for task in tasks if task.id in self.counts}
        asked = [task.id for task in tasks if task.split in splits]
        missing = [task_id for task_id in asked if task_id not in self.counts]
        text = f"{self.path}: {self.rows} rows for {len(self.counts)} of {len(asked)} tasks of {benchmark}"
        if self.excluded:
            text += f", and {self.excluded} for tasks that benchmark.exclude leaves out"
        if not missing:
            return f"{text}."
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        return f"{text}; {len(missing)} have no row ({names}), and the figures are over those that have."


def check_file(path: str | os.PathLike, tasks: Sequence[Task], excluded: Collection[str] = ()) -> CompletionsFile:
    """Read the whole file. Raises UserError, naming file and line, for the first row that cannot be judged.

    `tasks`: those of the whole benchmark. Rows for those whose ids are `excluded` are only counted.
    """
    path = Path(path)
    counts: Counter[str] = Counter()
    left_out = 0
    digest = hashlib.sha256()
    for task_id, text, is_solution in read_rows(path, tasks):
        if task_id in excluded:
            left_out += 1
            continue
        counts[task_id] += 1
        digest.update(repr((task_id, text, is_solution)).encode())
    if not counts:
        raise UserError(
            f"{path} holds no row{' but for tasks that benchmark.exclude leaves out' if left_out else ''}. Give a file with "
            "one JSON object a line: task_id and completion or solution."
        )
    return CompletionsFile(path, digest.hexdigest(), counts.total(), dict(counts), left_out)


def shared_tasks(tasks: Sequence[Task], files: Sequence[CompletionsFile]) -> list[Task]:
    """Return the tasks that all files have rows for. Raises UserError if there is none."""
    shared = [task for task in tasks if all(task.id in file.counts for file in files)]
    if not shared:
        names = " and ".join(str(file.path) for file in files)
        raise UserError(f"{names} have no task in common. Compare files for the same tasks.")
    return shared


def read_rows(path: Path, tasks: Sequence[Task]) -> Iterator[tuple[str, str, bool]]:
    """Yield (task id, text, whether it is a whole program) of each program in the file; blank lines are no rows."""
    ids = TaskIds(tasks)
    test = [task for task in tasks if task.split == "test"] or tasks
    for row in rows_of(path, test):
        task_id = ids.find(row.task)
        if task_id is None:
            shown = json.dumps(row.task)[:80]
            raise UserError(
                f"{row.where}: there is no task {shown} in this benchmark. Correct the id or benchmark=…, or delete that line."
            )
        for text in row.texts:
            yield task_id, text, row.is_solution
