"""Records as JSON lines: one frozen dataclass a line, read back with its types checked.

    write_jsonl(path, completions)
    completions = list(read_jsonl(path, Completion))

Use it for every file of records that is written whole. A file that is not there is read from `<path>.gz`, compressed.
A field that was renamed says so with `field(metadata={"earlier_name": ...})`, and files with the earlier name stay readable.
One with `metadata={"left_out": True}` is not written where it has its default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import json
import os
import sys
import types
import typing
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from cptlab.errors import UserError
from cptlab.storage.atomic import write_lines


@contextlib.contextmanager
def integers_of_any_length() -> Iterator[None]:
    """Within it, Python reads and writes integers of more than 4,300 digits, which some tests of APPS hold."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def to_json(record: Any) -> str:
    """Return a record as one line of JSON, keys in the order of the fields."""
    return dump_line(as_data(record))


def as_data(record: Any) -> Any:
    """Return a record as `dataclasses.asdict` does, without the fields that are left out where they have their default."""
    if dataclasses.is_dataclass(record):
        found = ((one, getattr(record, one.name)) for one in dataclasses.fields(record))
        return {
            one.name: as_data(value)
            for one, value in found
            if not ("left_out" in one.metadata and value == one.default)
        }
    if isinstance(record, (list, tuple)):
        return [as_data(value) for value in record]
    if isinstance(record, dict):
        return {key: as_data(value) for key, value in record.items()}
    return record


def dump_line(data: Any) -> str:
    """Return one line of JSON. Half a surrogate pair, which JSON may hold and UTF-8 may not, stays an escape."""
    with integers_of_any_length():
        line = json.dumps(data, ensure_ascii=False)
        try:
            line.encode()
        except UnicodeEncodeError:
            return json.dumps(data)
    return line


def from_json(kind: type, line: str) -> Any:
    """Return the record of dataclass `kind` in a line that `to_json` wrote. Raises ValueError if it does not fit."""
    try:
        with integers_of_any_length():
            data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
    return _build(kind, data)


def _build(kind: type, data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"a {kind.__name__} is a JSON object, not {type(data).__name__}")
    hints, required, renamed = _fields(kind)
    data = {renamed.get(name, name): value for name, value in data.items()}
    unknown = sorted(set(data) - set(hints))
    missing = sorted(required - set(data))
    if unknown or missing:
        raise ValueError(f"{kind.__name__}: missing fields {missing}, unknown fields {unknown}")
    return kind(**{name: _convert(hints[name], value, name) for name, value in data.items()})


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str], dict[str, str]]:
    """Return the types of a dataclass's fields, the names of those without a default, and new names by earlier ones."""
    fields = dataclasses.fields(kind)
    required = (f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING)
    renamed = {f.metadata["earlier_name"]: f.name for f in fields if "earlier_name" in f.metadata}
    return typing.get_type_hints(kind), frozenset(required), renamed


def _convert(hint: Any, value: Any, name: str) -> Any:
    if hint is Any:
        return value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"field {name} is a list, not {type(value).__name__}")
        return tuple(_convert(args[0], item, name) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"field {name} is an object, not {type(value).__name__}")
        return {key: _convert(args[1], item, name) for key, item in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"field {name} is {hint.__name__}, not {type(value).__name__}")
    return value


def write_jsonl(path: str | os.PathLike, records: Iterable[Any]) -> None:
    """Write records to `path`, one a line. The file appears complete or not at all."""
    write_lines(path, map(to_json, records))


def is_stored(path: Path) -> bool:
    """Whether a file is there, plain or compressed as `<path>.gz`."""
    return path.is_file() or compressed(path).is_file()


def compressed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def open_lines(path: Path) -> BinaryIO:
    """Open a file for reading, plain or compressed as `<path>.gz`. Places in it are those of the plain file."""
    return open(path, "rb") if path.is_file() else cast(BinaryIO, gzip.open(compressed(path)))


def read_jsonl(path: str | os.PathLike, kind: type) -> Iterator[Any]:
    """Yield the records of a JSONL file. Raises UserError, naming file and line, for a malformed row."""
    return (record for record, _ in read_placed(path, kind))


def read_placed(path: str | os.PathLike, kind: type) -> Iterator[tuple[Any, int]]:
    """Yield each record, and the byte at which its line begins (see `open_lines`). Errors as in `read_jsonl`."""
    path, place = Path(path), 0
    if not is_stored(path):
        raise UserError(f"There is no file {path}. Check the path, or remake the file with the command that wrote it.")
    try:
        with open_lines(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _record(path, number, kind, line), place
                place += len(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{compressed(path)} is damaged ({error}). Copy it again, or remake it.") from None


def _record(path: Path, number: int, kind: type, line: bytes) -> Any:
    try:
        return from_json(kind, line.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {error}. Correct or delete that line, or remake the file.") from None
