"""JSON messages between the main process, its servers and their children: a length in four bytes, then the text."""

from __future__ import annotations

import json
import os
import struct
from typing import Any


class HangUp(Exception):
    """The main process has closed its end of the pipe, or died."""


def read_message(fd: int) -> Any | None:
    """Return the next JSON value from `fd`, or None at its end."""
    header = _read_exactly(fd, 4)
    if header is None:
        return None
    body = _read_exactly(fd, struct.unpack("!I", header)[0])
    return None if body is None else json.loads(body)


def write_message(fd: int, value: Any) -> None:
    """Write one JSON value, preceded by its length in four bytes."""
    body = json.dumps(value).encode()
    write_all(fd, struct.pack("!I", len(body)) + body)


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of `data` to `fd`, in as many calls as that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_exactly(fd: int, size: int) -> bytes | None:
    chunks = []
    while size:
        chunk = os.read(fd, min(size, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
