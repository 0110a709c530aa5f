"""CSV files that grow row by row, in which a column may appear later: the header and the earlier rows get it, too.

append_row(path, {"step": 10, "loss": 0.5})
append_row(path, {"step": 20, "loss": 0.4, "val_loss": 0.6})    # the first row gets an empty val_loss
rows = read_rows(path)                                          # [{"step": "10", "loss": "0.5"}, ...]
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cptlab.storage.atomic import write_text


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row, and the columns that the file lacks. The row is with the operating system when this returns."""
    header = _header(path)
    missing = [name for name in row if name not in header]
    if missing:
        _write(path, header + missing, [*read_rows(path), row])
    else:
        with open(path, "a", encoding="utf-8", newline="") as file:
            file.write(_lines(header, [row]))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows as they stand, without their empty fields; none if there is no file.

    A last row that a kill broke off, which lacks its newline, is left out.
    """
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        whole = [line for line in file if line.endswith("\n")]
    return [{name: value for name, value in row.items() if value} for row in csv.DictReader(whole)]


def keep_rows(path: Path, wanted: Callable[[dict[str, str]], bool]) -> None:
    """Drop the other rows. A file without rows is removed."""
    rows, header = read_rows(path), _header(path)
    kept = [row for row in rows if wanted(row)]
    if kept:
        _write(path, header, kept)
    else:
        path.unlink(missing_ok=True)


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def _write(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, _lines(header, [dict(zip(header, header)), *rows]))


def _lines(header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, header).writerows(rows)
    return text.getvalue()
