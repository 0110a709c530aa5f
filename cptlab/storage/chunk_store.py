"""Long work cut into chunks, each written whole: killed at any moment, it loses the chunk in hand and nothing else.

    store = ChunkStore("cache/samples", Completion, work={"backbone": fingerprint, "n": 20, "seed": 0}, keys=["0", "1"])
    store.compute(sample_chunk)           # calls sample_chunk(key) for each chunk that is not there yet, in order
    completions = list(store.records())   # of all chunks, in the order of the keys

A chunk's result must depend on `work` and its key alone; then a resumed run leaves the files of an undisturbed one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.storage.atomic import write_text
from cptlab.storage.jsonl import read_jsonl, write_jsonl


class ChunkStore:
    """The chunks of one piece of work, in `<root>-<first 16 digits of the fingerprint>/`.

    `kind` is the dataclass of the records; `work` is plain JSON data that says all the results depend on; `keys` name
    the chunks and are fixed up front. Both go into the fingerprint, so other work never meets these files; a manifest
    that says otherwise means a damaged directory, a UserError. The i-th key's records are in `<i>.jsonl`.
    Several processes may open the same store: one computes, the others wait for it and find the chunks done.
    """

    def __init__(self, root: str | os.PathLike, kind: type, work: Mapping[str, Any], keys: Sequence[str]) -> None:
        assert len(set(keys)) == len(keys)
        self.kind = kind
        self.keys = list(keys)
        self._files = {key: f"{i:05d}.jsonl" for i, key in enumerate(self.keys)}
        self._manifest = json.dumps({"kind": kind.__name__, "work": work, "keys": self.keys}, sort_keys=True) + "\n"
        self.fingerprint = hashlib.sha256(self._manifest.encode()).hexdigest()
        root = Path(root)
        self.directory = root.with_name(f"{root.name}-{self.fingerprint[:16]}")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._lock():
            for partial in self.directory.glob("*.partial"):  # of a killed run: who writes holds the lock
                partial.unlink()
            self._check_manifest()

    def path(self, key: str) -> Path:
        """The file of one chunk's records, there once the chunk is done."""
        return self.directory / self._files[key]

    def missing(self) -> list[str]:
        """The keys of the chunks that are not there yet, in order."""
        return [key for key in self.keys if not self.path(key).is_file()]

    def compute(self, callback: Callable[[str], Sequence[Any]], progress: Callable[[int], None] | None = None) -> None:
        """Make every missing chunk from `callback(key)`, in order. `progress` is given numbers of chunks now there."""
        with self._lock():
            missing = self.missing()
            if progress is not None:
                progress(len(self.keys) - len(missing))
            for key in missing:
                write_jsonl(self.path(key), callback(key))
                if progress is not None:
                    progress(1)

    def read(self, key: str) -> list[Any]:
        """The records of one chunk. A malformed row is a UserError naming file and line."""
        return list(read_jsonl(self.path(key), self.kind))

    def records(self) -> Iterator[Any]:
        """All records, in the order of the keys."""
        for key in self.keys:
            yield from self.read(key)

    def _check_manifest(self) -> None:
        path = self.directory / "manifest.json"
        if path.is_file():
            whole = path.read_bytes() == self._manifest.encode()
        else:
            whole = not any(self.directory.glob("*.jsonl"))
        if not whole:
            raise UserError(
                f"{self.directory} is damaged: its manifest.json is not that of the work its name stands for. "
                "Delete that directory and run the same command again."
            )
        if not path.is_file():
            write_text(path, self._manifest)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # A POSIX lock: it ends with this process even if killed, and worker processes forked meanwhile do not hold it.
        with open(self.directory / "lock", "w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield
