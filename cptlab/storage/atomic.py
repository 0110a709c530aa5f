"""Files that appear complete or not at all: written beside their place, flushed to the disk, and renamed.

Every file that cptlab writes whole is written here. A process that is killed leaves a `*.partial` file and the old content.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Within it, write the new content of `path` to the file that is given; it takes the place of `path` at the end.

    Makes the directory. After an exception `path` is as it was.
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
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    write_bytes(path, text.encode())


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Each line with a newline behind it; `lines` may be larger than memory."""
    with replacing(path) as file:
        for line in lines:
            file.write(line.encode() + b"\n")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """JSON for people: indented by one."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
