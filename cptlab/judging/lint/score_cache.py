"""Scores kept on disk by content: one SQLite file that several processes may use at once.

It only saves time. A damaged file is set aside and a new one begun; one that cannot be written to is read, and one that
cannot be opened is done without. Each is said once.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cptlab.records import Quality
from cptlab.storage.damaged import set_aside
from cptlab.storage.jsonl import from_json, to_json

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: without our table
BESIDE = ("-journal", "-wal", "-shm")  # SQLite would play a damaged file's journal back into the new one


class ScoreCache:
    """Scores under `context`: a text that names everything that a score depends on besides the program."""

    def __init__(self, directory: str | os.PathLike, context: str) -> None:
        self.path = Path(directory) / "quality.sqlite"
        self.context = context
        self._base: sqlite3.Connection | None = None
        self._keeps = True  # whether new scores are kept
        self._renewed = False  # whether a damaged file was set aside

    def __enter__(self) -> ScoreCache:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._do_without(error.strerror)
            return self
        if self.path.is_dir():
            set_aside(self.path, "it is a directory")
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._base is not None:
            self._base.close()

    def get(self, program: str) -> Quality | None:
        """Return the score of a program; None if there is none."""
        for key, record in self._ask("SELECT key, record FROM quality WHERE key = ?", self._key(program)):
            try:
                return from_json(Quality, record)
            except (ValueError, TypeError):
                self._ask("DELETE FROM quality WHERE key = ?", key)
        return None

    def put(self, program: str, quality: Quality) -> None:
        """Keep the score of a program."""
        if self._keeps:
            self._ask("INSERT OR IGNORE INTO quality VALUES (?, ?)", self._key(program), to_json(quality))

    def _open(self) -> None:
        try:
            self._base = sqlite3.connect(self.path, timeout=120, isolation_level=None)  # each statement a transaction
            self._base.execute("PRAGMA synchronous=OFF")  # a power cut may lose the cache, a killed process nothing
            self._base.execute("CREATE TABLE IF NOT EXISTS quality (key BLOB PRIMARY KEY, record TEXT) WITHOUT ROWID")
            self._base.execute("SELECT key, record FROM quality LIMIT 1").fetchall()
        except sqlite3.Error as error:
            self._recover(error)

    def _ask(self, statement: str, *values: Any) -> Sequence[Any]:
        if self._base is None:
            return []
        try:
            return self._base.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._recover(error)
            return []

    def _recover(self, error: sqlite3.Error) -> None:
        """Begin a new file in the place of a damaged one, or go on without."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_READONLY:
            self._keeps = False
            self._say(f"{self.path} cannot be written to: scores are taken from it, and new ones are not kept.")
            return
        if self._base is not None:
            self._base.close()
            self._base = None
        if code not in DAMAGED or self._renewed:
            self._do_without(str(error))
            return
        self._renewed = True
        set_aside(self.path, str(error))
        for ending in BESIDE:
            beside = self.path.with_name(self.path.name + ending)
            if beside.exists():
                set_aside(beside, f"it belongs to {self.path.name}")
        self._open()

    def _do_without(self, reason: str | None) -> None:
        self._keeps = False
        self._say(f"{self.path} cannot be used ({reason}): programs are scored without it.")

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _key(self, program: str) -> bytes:
        return hashlib.sha256(f"{self.context}\0{program}".encode("utf-8", "surrogatepass")).digest()
