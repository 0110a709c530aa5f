"""A journal of finished rows, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cptlab.storage.jsonl import dump_line, to_json


class Journal:
    """A file of finished rows, one JSON line each, in the order in which they came.

        with Journal(path) as journal:
            if row not in journal:
                journal.add(row, record)

    A torn last line, which a killed process leaves, is dropped when the journal is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[int, int] = {}  # row -> byte offset

    def __enter__(self) -> Journal:
        self._file = open(self.path, "a+b")
        self._file.seek(0)
        end = 0
        for line in self._file:
            row = _row_of(line)
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
        """Keep the record (a dataclass) of a finished row; it outlives this process as soon as this returns."""
        line = f'{{"row": {row}, "record": {to_json(record)}}}\n'.encode()
        self._file.write(line)
        self._file.flush()
        self._places[row] = self._end
        self._end += len(line)

    def read(self, row: int) -> str:
        """Return the record of a row as one JSON line."""
        self._file.seek(self._places[row])
        return dump_line(json.loads(self._file.readline())["record"])


def _row_of(line: bytes) -> int | None:
    """Return the row that a line belongs to; None for a torn line."""
    try:
        return json.loads(line)["row"] if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
