"""A journal of finished rows, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from cptlab.storage.atomic import write_bytes
from cptlab.storage.damaged import set_aside
from cptlab.storage.jsonl import dump_line, from_json, to_json


class Journal:
    """A file of finished rows, one JSON line each, in the order in which they came.

        with Journal(path, Verdict) as journal:
            if row not in journal:
                journal.add(row, record)

    A torn last line, which a killed process leaves, is dropped when the journal is opened. Any other line that is no row
    with a record of dataclass `kind` is damage: the file is set aside, and the rows before that line are kept.
    """

    def __init__(self, path: Path, kind: type) -> None:
        self.path = path
        self.kind = kind
        self._places: dict[int, int] = {}  # row -> byte offset

    def __enter__(self) -> Journal:
        if self.path.exists() and not (
            self.path.is_file() and os.access(self.path, os.R_OK | os.W_OK, effective_ids=True)
        ):
            set_aside(self.path, "it is no file that may be read and written")
        self._file = open(self.path, "a+b")
        self._file.seek(0)
        self._end, damaged = 0, False
        for line in self._file:
            entry = _entry(line, self.kind)
            if entry is None:
                damaged = line.endswith(b"\n")
                break
            self._places[entry[0]] = self._end
            self._end += len(line)
        if damaged:
            self._file.seek(0)
            sound = self._file.read(self._end)
            self._file.close()
            set_aside(self.path, f"line {len(self._places) + 1} is not as it was written")
            write_bytes(self.path, sound)
            self._file = open(self.path, "a+b")
        self._file.truncate(self._end)
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
        """Keep the record of a finished row; it outlives this process as soon as this returns."""
        line = f'{{"row": {row}, "record": {to_json(record)}}}\n'.encode()
        self._file.write(line)
        self._file.flush()
        self._places[row] = self._end
        self._end += len(line)

    def read(self, row: int) -> str:
        """Return the record of a row as one JSON line."""
        self._file.seek(self._places[row])
        return dump_line(json.loads(self._file.readline())["record"])


def read_journal(path: Path, kind: type) -> list[Any]:
    """Return the records of a journal, which may be in use, up to a torn or damaged line; the file stays as it is."""
    with open(path, "rb") as file:
        entries = takewhile(lambda entry: entry is not None, (_entry(line, kind) for line in file))
        return [entry[1] for entry in entries if entry is not None]


def _entry(line: bytes, kind: type) -> tuple[int, Any] | None:
    """Return the row and the record of a line; None for one that is torn or damaged."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(entry, dict) or set(entry) != {"row", "record"} or type(entry["row"]) is not int:
            return None
        return entry["row"], from_json(kind, json.dumps(entry["record"]))
    except ValueError:
        return None
