"""Scores kept on disk by content: one SQLite file that several processes may use at once."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

from cptlab.records import Quality
from cptlab.storage.jsonl import from_json, to_json


class ScoreCache:
    """Scores under `context`: a text that names everything that a score depends on besides the program."""

    def __init__(self, directory: str | os.PathLike, context: str) -> None:
        self.path = Path(directory) / "quality.sqlite"
        self.context = context

    def __enter__(self) -> ScoreCache:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(self.path, timeout=120, isolation_level=None)  # each statement is a transaction
        self._base.execute("PRAGMA synchronous=OFF")  # a power cut may lose the cache, a killed process loses nothing
        self._base.execute("CREATE TABLE IF NOT EXISTS quality (key BLOB PRIMARY KEY, record TEXT) WITHOUT ROWID")
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def get(self, program: str) -> Quality | None:
        row = self._base.execute("SELECT record FROM quality WHERE key = ?", (self._key(program),)).fetchone()
        return None if row is None else from_json(Quality, row[0])

    def put(self, program: str, quality: Quality) -> None:
        self._base.execute("INSERT OR IGNORE INTO quality VALUES (?, ?)", (self._key(program), to_json(quality)))

    def _key(self, program: str) -> bytes:
        return hashlib.sha256(f"{self.context}\0{program}".encode("utf-8", "surrogatepass")).digest()
