"""Read the rows of a benchmark from files below a data directory, or from the Hugging Face hub.

Rows are dicts, the same from both, and one function per benchmark makes a Task of a row.
"""

from __future__ import annotations

import gzip
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.settings.setting import Setting

DataDir = Annotated[
    str | None, Setting("Directory of benchmark files, as paths.data_dir has it; null: the Hugging Face hub.")
]
Row = tuple[str, dict[str, Any]]  # its place, for error messages, and its content


@dataclass(frozen=True)
class Source:
    """One benchmark's file and its place on the hub.

    `file` is below the data directory: .jsonl, or .json with a list, both also as .gz. `hub` and `options` are the
    arguments of `datasets.load_dataset`, and `splits` the hub splits to take.
    """

    file: str
    hub: tuple[str, ...]
    splits: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


def read_rows(source: Source, data_dir: str | os.PathLike | None) -> Iterator[Row]:
    """Yield the rows of the file if it exists, else those of the hub, each with its hub split under "split".

    Raise UserError for a data directory that does not exist, an unreadable file, and where the hub cannot be reached.
    """
    path = find_file(data_dir, source.file)
    return file_rows(path) if path is not None else _hub_rows(source)


def check_data_dir(data_dir: str | os.PathLike | None) -> None:
    """Raise UserError unless `data_dir` is None or a directory."""
    if data_dir is not None and not Path(data_dir).is_dir():
        raise UserError(
            f"There is no data directory {data_dir}. Correct paths.data_dir (or the environment variable "
            "CPTLAB_DATA_DIR), or set it to null to load benchmarks from the Hugging Face hub."
        )


def find_file(data_dir: str | os.PathLike | None, name: str) -> Path | None:
    """Return the file `name` or `name.gz` below the data directory, or None."""
    check_data_dir(data_dir)
    if data_dir is None:
        return None
    return next((path for ending in ("", ".gz") if (path := Path(data_dir) / (name + ending)).is_file()), None)


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a .jsonl file, or of a .json file with a list; either may be compressed (.gz)."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:  # some editors put a byte order mark in front
            if ".jsonl" in path.suffixes:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _row(f"{path}, line {number}", line)
                return
            rows = _parsed(str(path), file.read())
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8. Save it as UTF-8, or take a fresh copy of that file.") from None
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}). Take a fresh copy of that file.") from None
    if not isinstance(rows, list):
        raise UserError(
            f"{path} is not a list of objects. Put [ ] around them, or write one a line into a .jsonl file."
        )
    for number, row in enumerate(rows):
        yield _row(f"{path}, row {number}", row)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or a number or a nesting that Python does not read
        raise UserError(f"{where} is not JSON ({error}). Correct or delete it, or take a fresh copy.") from None


def _row(where: str, content: Any) -> Row:
    if isinstance(content, str):
        content = _parsed(where, content)
    if not isinstance(content, dict):
        raise UserError(f"{where} is not an object with named fields. Correct or delete it, or take a fresh copy.")
    return where, content


def _hub_rows(source: Source) -> Iterator[Row]:
    # slow to import, and only needed here; HTTPError is the base of the errors of huggingface_hub's HTTP client
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    name = source.hub[0] if not source.options else str(next(iter(source.options["data_files"].values())))
    for split in source.splits:
        try:
            rows: Any = datasets.load_dataset(*source.hub, split=split, **source.options)
        except (OSError, ValueError, HTTPError, DatasetsError) as error:
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise UserError(
                f"{name} could not be loaded from the Hugging Face hub ({type(error).__name__}: {reason}). Connect to "
                f"the hub, or give a directory with {source.file} in it as paths.data_dir or CPTLAB_DATA_DIR."
            ) from None
        for number, row in enumerate(rows):
            yield f"{name}, split {split}, row {number}", {**row, "split": split}


def make_tasks(rows: Iterable[Row], make: Callable[[dict[str, Any]], Task | None]) -> list[Task]:
    """Return `make(row)` for every row, without the None among them.

    Raise UserError, which names the row, where `make` cannot read it and where an id stands for two different tasks. A
    task that occurs again, word for word, counts once.
    """
    tasks: dict[str, Task] = {}
    for where, row in rows:
        try:
            with warnings.catch_warnings(action="ignore"):  # programs with "\d" and the like
                task = make(row)
        except KeyError as error:
            problem = f"there is no field {error}"
        except (TypeError, ValueError, AttributeError, IndexError, SyntaxError) as error:
            problem = str(error) or type(error).__name__
        else:
            if task is None or tasks.setdefault(task.id, task) == task:
                continue
            problem = f"task {task.id} occurs before, with other content"
        raise UserError(f"{where}: {problem}. Correct or delete that row, or take a fresh copy of the data.") from None
    return list(tasks.values())
