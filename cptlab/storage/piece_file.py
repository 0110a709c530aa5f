"""A large file that is computed piece by piece and can be killed at any moment.

The file has its final size from the start. A piece is written at its place and flushed to the disk; then a line with
its SHA-256 is added to a journal beside it. A piece is there if the journal has it and the file still holds what the
journal says, so a half-written piece, a half-written line and a damaged file all come to the same: that piece is
computed again. Readers and writers hold the directory (`cptlab.storage.locks`).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from cptlab.storage.atomic import write_text
from cptlab.storage.damaged import set_aside

BLOCK = 1 << 20  # bytes read at a time


class PieceFile:
    """The file at `path` whose pieces have `sizes` bytes, one behind the other; its journal is `path`.journal."""

    def __init__(self, path: Path, sizes: Sequence[int]) -> None:
        self.path, self.sizes = path, sizes
        self.starts = [0, *accumulate(sizes)]
        self.journal = path.with_name(f"{path.name}.journal")

    @property
    def size(self) -> int:
        """Bytes when it is complete."""
        return self.starts[-1]

    @property
    def allocated(self) -> int:
        """Bytes that it already takes on the disk."""
        return self.path.stat().st_blocks * 512 if self.path.exists() else 0

    def check(self) -> tuple[dict[int, str], set[int]]:
        """The pieces that are there, with their checksums, and those that were but are damaged. Reads all of them."""
        entered = self._entered()
        if not self.path.is_file():
            return {}, set(entered)
        with ThreadPoolExecutor() as pool:  # hashlib lets other threads run
            found = dict(zip(entered, pool.map(self._checksum, entered), strict=True))
        sound = {piece: checksum for piece, checksum in entered.items() if found[piece] == checksum}
        return sound, set(entered) - set(sound)

    def begin(self, sound: dict[int, str]) -> None:
        """Take the disk space, and leave in the journal what `check` found. OSError where there is no space."""
        for path in (self.path, self.journal):
            if path.is_dir():
                set_aside(path, "it is a directory")
        with open(self.path, "ab") as file:
            if self.size:
                os.posix_fallocate(file.fileno(), 0, self.size)
        write_text(self.journal, "".join(_line(piece, sound[piece]) for piece in sorted(sound)))

    def put(self, piece: int, data: bytes | memoryview) -> None:
        """Write a piece and enter it in the journal."""
        assert len(data) == self.sizes[piece]
        with open(self.path, "r+b") as file:
            file.seek(self.starts[piece])
            file.write(data)
            _to_disk(file)
        with open(self.journal, "a") as file:
            file.write(_line(piece, hashlib.sha256(data).hexdigest()))
            _to_disk(file)

    @cached_property
    def content(self) -> memoryview:
        """The bytes of the complete file, mapped: read when looked at, never written."""
        if not self.size:
            return memoryview(b"")
        with open(self.path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ))

    def _entered(self) -> dict[int, str]:
        entered = {}
        for line in self.journal.read_bytes().splitlines() if self.journal.is_file() else ():
            try:
                entry = json.loads(line)
                entered[entry["piece"]] = entry["sha256"]
            except (ValueError, KeyError, TypeError):
                continue  # half written
        return {piece: checksum for piece, checksum in entered.items() if piece in range(len(self.sizes))}

    def _checksum(self, piece: int) -> str:
        digest, left = hashlib.sha256(), self.sizes[piece]
        with open(self.path, "rb") as file:
            file.seek(self.starts[piece])
            while left and (block := file.read(min(left, BLOCK))):
                digest.update(block)
                left -= len(block)
        return digest.hexdigest()


def _line(piece: int, checksum: str) -> str:
    return json.dumps({"piece": piece, "sha256": checksum}) + "\n"


def _to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())
