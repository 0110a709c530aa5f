"""Long work cut into chunks, each written whole: killed at any moment, it loses the chunk in hand and nothing else.

A chunk that itself takes long keeps its finished rows in a journal, and then a kill loses the rows in hand alone.

Use it for results that take long, fit in records and depend on settings that can be named: drawn programs, scores,
verdicts. Runs with the same work share the files.

    store = ChunkStore("cache/samples", Completion, work={"backbone": fingerprint, "n": 20, "seed": 0}, keys=["0", "1"])
    store.compute(sample_chunk)           # calls sample_chunk(key) for each chunk that is not there yet, in order
    completions = list(store.records())   # of all chunks, in the order of the keys

A chunk may depend on `work` and its key alone; then a resumed run leaves the same files as an undisturbed one. The last
line of a chunk's file is its seal: the fingerprint of the work, the number of records and their SHA-256. A file that it
does not fit is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.storage.atomic import write_lines, write_text
from cptlab.storage.damaged import set_aside, usable_place
from cptlab.storage.journal import Journal, read_journal
from cptlab.storage.jsonl import from_json, to_json
from cptlab.storage.locks import locked

FORMAT = 2  # of the files; another one has other directories
MANIFEST = "manifest.json"
LOCK_SUFFIX = ".lock"
JOURNAL_SUFFIX = ".journal"


class ChunkStore:
    """The chunks of one piece of work, in `<root>-<first 16 digits of the fingerprint>/`.

    `kind` is the dataclass of the records. `work` is plain JSON data that names everything the results depend on. `keys`
    name the chunks and are fixed up front; the records of the i-th are in `<i>.jsonl`. All three go into the fingerprint,
    so other work has another directory. Several processes may fill the same store, also on several machines with a common
    disk: who computes a chunk holds its lock, and the others wait for it and find the chunk done. What is damaged is set aside and made anew (damaged.py). A complete store is only read, so it
    may be another user's; in the place of an unfinished one that cannot be written to, this user gets one of their own.
    """

    def __init__(self, root: str | os.PathLike, kind: type, work: Mapping[str, Any], keys: Sequence[str]) -> None:
        assert len(set(keys)) == len(keys)
        self.kind, self.work = kind, work
        self.keys = list(keys)
        self._files = {key: chunk_file(i) for i, key in enumerate(self.keys)}
        content = {"format": FORMAT, "kind": kind.__name__, "work": work, "keys": self.keys}
        self._manifest = json.dumps(content, sort_keys=True) + "\n"
        self.fingerprint = hashlib.sha256(self._manifest.encode()).hexdigest()
        root = Path(root)
        self.directory = root.with_name(f"{root.name}-{self.fingerprint[:16]}")
        if not self._damage() and not self.missing():
            return
        self.directory = usable_place(self.directory)
        with locked(self.directory):
            for partial in self.directory.glob(
                f"{MANIFEST}.*.partial"
            ):  # of a killed run: who writes it holds the lock
                partial.unlink()
            for key in self.keys:
                if self.path(key).is_file():
                    self._journal_path(key).unlink(missing_ok=True)
            for path, reason in self._damage().items():
                set_aside(path, reason)
            if not (self.directory / MANIFEST).exists():
                write_text(self.directory / MANIFEST, self._manifest)

    def path(self, key: str) -> Path:
        """Return the file of one chunk's records, which exists once the chunk is done."""
        return self.directory / self._files[key]

    def journal(self, key: str) -> Journal:
        """Return the journal of a chunk, for the callback of `compute`. It is deleted when the chunk is written."""
        return Journal(self._journal_path(key), self.kind)

    def missing(self) -> list[str]:
        """Return the keys of the chunks that are not done, in order."""
        return [key for key in self.keys if not self.path(key).is_file()]

    def compute(
        self,
        callback: Callable[[str], Iterable[Any]],
        progress: Callable[[int], None] | None = None,
        keys: Collection[str] | None = None,
    ) -> None:
        """Compute the missing chunks among `keys` (None: all) with `callback(key)`, in the order of the store's keys.

        `progress` is called with numbers of finished chunks: of those that are there first, then after each.
        """
        wanted = [key for key in self.keys if keys is None or key in keys]
        missing = [key for key in wanted if not self.path(key).is_file()]
        if progress is not None:
            progress(len(wanted) - len(missing))
        for key in missing:
            with self._held(key):
                if not self.path(key).is_file():
                    write_lines(self.path(key), self._sealed(map(to_json, callback(key))))
                    self._journal_path(key).unlink(missing_ok=True)
            if progress is not None:
                progress(1)

    def read(self, key: str) -> list[Any]:
        """Return the records of one chunk. Raises UserError, naming the file, where it was damaged since it was opened."""
        try:
            return self._read(self.path(key))
        except ValueError as error:
            raise UserError(f"{self.path(key)} is damaged: {error}. Run the same command again.") from None

    def records(self) -> Iterator[Any]:
        """Yield all records, in the order of the keys."""
        for key in self.keys:
            yield from self.read(key)

    @contextmanager
    def _held(self, key: str) -> Iterator[None]:
        """Hold a chunk. Its lock file goes once the chunk is there: who still waits for it then finds the chunk done."""
        name = self.path(key).with_suffix(LOCK_SUFFIX).name
        with locked(self.directory, name=name):
            for partial in self.directory.glob(f"{self.path(key).name}.*.partial"):  # of a killed run
                partial.unlink()
            yield
            (self.directory / name).unlink(missing_ok=True)

    def _journal_path(self, key: str) -> Path:
        return self.path(key).with_suffix(JOURNAL_SUFFIX)

    def _damage(self) -> dict[Path, str]:
        """Return the files that are not what they should be, each with the reason."""
        found: dict[Path, str] = {}
        manifest = self.directory / MANIFEST
        try:
            if manifest.read_bytes() != self._manifest.encode():
                found[manifest] = "it is not that of the work its directory is named for"
        except FileNotFoundError:
            pass
        except OSError as error:
            found[manifest] = str(error.strerror)
        for path in map(self.path, self.keys):
            try:
                if os.path.lexists(path):
                    self._read(path)
            except ValueError as error:
                found[path] = str(error)
            except OSError as error:
                found[path] = str(error.strerror)
        return found

    def _sealed(self, lines: Iterable[str]) -> Iterator[str]:
        digest, count = hashlib.sha256(), 0
        for line in lines:
            digest.update(line.encode() + b"\n")
            count += 1
            yield line
        yield _seal(self.fingerprint, count, digest.hexdigest())

    def _read(self, path: Path) -> list[Any]:
        """Return the records of a file. Raises ValueError where its seal does not fit."""
        return _sealed_records(path, self.fingerprint, self.kind)


def chunk_file(number: int) -> str:
    """Return the file name of a chunk's records."""
    return f"{number:05d}.jsonl"


def kept_records(directory: Path, work: str, number: int, kind: type) -> list[Any]:
    """Return the records that a store of the fingerprint `work` keeps of a chunk, finished or not, and change nothing.

    What is not there, damaged or another user's own counts as none.
    """
    path = directory / chunk_file(number)
    try:
        return (
            _sealed_records(path, work, kind) if path.exists() else read_journal(path.with_suffix(JOURNAL_SUFFIX), kind)
        )
    except (OSError, ValueError):
        return []


def _seal(work: str, count: int, checksum: str) -> str:
    return json.dumps({"work": work, "records": count, "sha256": checksum})


def _sealed_records(path: Path, work: str, kind: type) -> list[Any]:
    *lines, seal, rest = [b"", *path.read_bytes().split(b"\n")]
    checksum = hashlib.sha256(b"".join(line + b"\n" for line in lines[1:])).hexdigest()
    if rest or seal != _seal(work, len(lines) - 1, checksum).encode():
        raise ValueError("it is not as it was written")
    return [from_json(kind, line.decode()) for line in lines[1:]]
