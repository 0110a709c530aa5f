"""A review on disk: its pairs, its reviewers and every vote, in one SQLite file beside what is reviewed.

A vote is on the disk before its reviewer is told so, whatever is killed afterwards. Votes are only ever added: a reviewer
who changes an answer adds another, and the last one counts. Pairs that have a vote are never replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cptlab.errors import UserError
from cptlab.review.pairs import Pair
from cptlab.storage.jsonl import from_json, to_json

REVIEW_FILE = "review.sqlite"
ANSWERS = ("left", "right", "same")
NAME_LENGTH = 40
WAIT_SECONDS = 20.0  # for another process that is writing
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pairs (number INTEGER PRIMARY KEY, pair TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reviewers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, folded TEXT NOT NULL UNIQUE, secret TEXT NOT NULL UNIQUE, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY, reviewer INTEGER NOT NULL REFERENCES reviewers, pair INTEGER NOT NULL REFERENCES pairs (number),
    answer TEXT NOT NULL CHECK (answer IN {ANSWERS}), at TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Reviewer:
    """A person who reviews. Whoever has the `secret` votes as this person."""

    id: int
    name: str
    secret: str


class Review:
    """The review in `file`. Without `pairs` and `systems`: that which is stored there; else they are stored there.

    Of the `systems`, programs of the second are counted as better or worse than those of the first.

    Raises UserError where the file holds no review, and where it holds votes about other pairs.
    """

    def __init__(self, file: Path, pairs: Sequence[Pair] | None = None, systems: tuple[str, str] | None = None) -> None:
        self.file = file
        if pairs is None and not file.is_file():
            raise UserError(f"There is no review {file}. Begin one with cptlab review.")
        try:
            self._store(pairs, systems)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise UserError(
                    f"{file} cannot be opened ({error}). Free the disk or the file, and try again."
                ) from None
            raise UserError(f"{file} is no review ({error}). Move it away, or copy it again.") from None

    def _store(self, pairs: Sequence[Pair] | None, systems: tuple[str, str] | None) -> None:
        if not self.file.exists():
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))  # it holds what reviewers prove themselves with
        with self._connection() as connection:
            for statement in filter(str.strip, SCHEMA.split(";")):
                connection.execute(statement)
            new = [("token", secrets.token_urlsafe(24)), ("name", secrets.token_hex(4))]
            connection.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", new)
            if pairs is not None and systems is not None:
                self._store_pairs(connection, list(map(to_json, pairs)), json.dumps(systems))
            facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
            lines = _lines(connection)
        if "systems" not in facts:
            raise UserError(f"{self.file} holds no pairs. Move it away, and begin the review anew.")
        self.pairs = [from_json(Pair, line) for line in lines]
        before, after = json.loads(facts["systems"])
        self.systems: tuple[str, str] = (before, after)
        self.token, self.name = facts["token"], facts["name"]
        self._digest = _digest(lines)

    def _store_pairs(self, connection: sqlite3.Connection, lines: list[str], systems: str) -> None:
        stored = connection.execute("SELECT value FROM facts WHERE name = 'systems'").fetchone()
        if lines == _lines(connection) and stored == (systems,):
            return
        votes = connection.execute("SELECT count(*) FROM votes").fetchone()[0]
        if votes:
            raise UserError(
                f"{self.file} holds {votes} votes about other pairs. Give the systems, limit and seed that it was begun with, "
                "or move it away."
            )
        connection.execute("DELETE FROM pairs")
        connection.executemany("INSERT INTO pairs VALUES (?, ?)", enumerate(lines, 1))
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('systems', ?)", (systems,))

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that is on the disk at the end of the block, or undone after an exception."""
        connection = sqlite3.connect(self.file, timeout=WAIT_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()

    def add_reviewer(self, name: str) -> Reviewer:
        """Add a person. Raises UserError for a name that is none, or that another reviewer has."""
        name = " ".join(unicodedata.normalize("NFKC", name).split())
        if not name or len(name) > NAME_LENGTH or not name.isprintable():
            raise UserError(f"A name has 1 to {NAME_LENGTH} characters. Write yours in letters.")
        secret = secrets.token_urlsafe(24)
        with self._connection() as connection:
            row = (name, name.casefold(), secret, _now())
            added = connection.execute(
                "INSERT OR IGNORE INTO reviewers (name, folded, secret, at) VALUES (?, ?, ?, ?)", row
            )
            if not added.rowcount:
                raise UserError(
                    f"There is a reviewer {name} already. If that is you, open your own link; else write another name."
                )
            return Reviewer(int(added.lastrowid or 0), name, secret)

    def reviewers(self) -> list[Reviewer]:
        """Return all reviewers in the order in which they came."""
        with self._connection() as connection:
            return [Reviewer(*row) for row in connection.execute("SELECT id, name, secret FROM reviewers ORDER BY id")]

    def reviewer(self, secret: str) -> Reviewer | None:
        """Return the person who has this secret."""
        with self._connection() as connection:
            row = connection.execute("SELECT id, name, secret FROM reviewers WHERE secret = ?", (secret,)).fetchone()
            return Reviewer(*row) if row else None

    def vote(self, reviewer: Reviewer, pair: int, answer: str) -> None:
        """Add a vote on pair number `pair`, from 1. Once this returns, the vote is on the disk.

        Raises UserError where another process has replaced the pairs, and sqlite3.Error where the vote is not stored.
        """
        if answer not in ANSWERS or not 1 <= pair <= len(self.pairs):
            raise ValueError(
                f"a vote is one of {ANSWERS} on a pair from 1 to {len(self.pairs)}, got {answer!r} on {pair}"
            )
        with self._connection() as connection:
            if _digest(_lines(connection)) != self._digest:
                raise UserError("The pairs of this review were replaced. Start the server again.")
            connection.execute(
                "INSERT INTO votes (reviewer, pair, answer, at) VALUES (?, ?, ?, ?)",
                (reviewer.id, pair, answer, _now()),
            )

    def votes(self) -> dict[str, dict[int, str]]:
        """Return the answer that counts by reviewer's name and pair's number, of all reviewers in their order."""
        with self._connection() as connection:
            found: dict[str, dict[int, str]] = {
                name: {} for (name,) in connection.execute("SELECT name FROM reviewers ORDER BY id")
            }
            rows = "SELECT name, pair, answer FROM votes JOIN reviewers ON reviewer = reviewers.id ORDER BY votes.id"
            for name, pair, answer in connection.execute(rows):
                found[name][pair] = answer
        return found

    def answers(self, reviewer: Reviewer) -> dict[int, str]:
        """Return one reviewer's answers by the pair's number."""
        with self._connection() as connection:
            rows = "SELECT pair, answer FROM votes WHERE reviewer = ? ORDER BY id"
            return dict(connection.execute(rows, (reviewer.id,)).fetchall())


def _lines(connection: sqlite3.Connection) -> list[str]:
    return [line for (line,) in connection.execute("SELECT pair FROM pairs ORDER BY number")]


def _digest(lines: Sequence[str]) -> str:
    found = hashlib.sha256()
    for line in lines:
        found.update(line.encode() + b"\n")
    return found.hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
