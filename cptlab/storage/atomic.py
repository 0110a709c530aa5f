"""Files that appear complete or not at all: written beside their place, flushed to the disk, and renamed.

Use it for every file that is written whole, and for a directory that means something only whole. A process that is
killed leaves a `*.partial` file or directory, and the old content. For files that grow, see `chunk_store` and
`piece_file`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yield a file for the new content of `path`, which takes its place at the end of the block.

    Makes the directory. After an exception, `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say where
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty directory for the new content of `path`, which takes its place at the end of the block.

    After an exception, `path` is as it was. A process that is killed at the very moment of the exchange leaves none.
    """
    path = Path(path)
    partial, old = (path.with_name(f"{path.name}.{os.getpid()}.{which}partial") for which in ("", "old."))
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had this one's number
    partial.mkdir(parents=True)
    try:
        yield partial
        for written in partial.rglob("*"):
            if written.is_file():
                with open(written, "rb+") as file:
                    os.fsync(file.fileno())
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    finally:
        for rest in (partial, old):
            shutil.rmtree(rest, ignore_errors=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file whole."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole, in UTF-8 and with the newlines that it has."""
    write_bytes(path, text.encode())


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Write each line, and a newline after it. `lines` may be larger than memory."""
    with replacing(path) as file:
        for line in lines:
            file.write(line.encode() + b"\n")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON for people to read, indented by one."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
