"""Long work cut into chunks, each written whole: killed at any moment, it loses the chunk in hand and nothing else.

A chunk that itself takes long keeps its finished rows in a journal, and then a kill loses the rows in hand alone.

Use it for results that take long, fit in records and depend on settings that can be named: drawn programs, scores,
verdicts. Runs with the same work share the files.

    store = ChunkStore("cache/samples", Completion, work={"backbone": fingerprint, "n": 20, "seed": 0}, keys=["0", "1"])
    store.compute(sample_chunk)           # calls sample_chunk(key) for each chunk that is not there yet, in order
    completions = list(store.records())   # of all chunks, in the order of the keys

A chunk may depend on `work` and its key alone; then a resumed run leaves the same files as an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.storage.atomic import write_text
from cptlab.storage.journal import Journal
from cptlab.storage.jsonl import read_jsonl, write_jsonl
from cptlab.storage.locks import locked


class ChunkStore:
    """The chunks of one piece of work, in `<root>-<first 16 digits of the fingerprint>/`.

    `kind` is the dataclass of the records. `work` is plain JSON data that names everything the results depend on. `keys`
    name the chunks and are fixed up front; the records of the i-th are in `<i>.jsonl`. All three go into the fingerprint,
    so other work has another directory. Several processes may open the same store: one computes, the others wait for it
    and find the chunks done. Raises UserError if the directory is damaged: its manifest is not that of this work.
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
        with locked(self.directory):
            for partial in self.directory.glob("*.partial"):  # of a killed run: who writes holds the lock
                partial.unlink()
            for key in self.keys:
                if self.path(key).is_file():
                    self._journal_path(key).unlink(missing_ok=True)
            self._check_manifest()

    def path(self, key: str) -> Path:
        """Return the file of one chunk's records, which exists once the chunk is done."""
        return self.directory / self._files[key]

    def journal(self, key: str) -> Journal:
        """Return the journal of a chunk, for the callback of `compute`. It is deleted when the chunk is written."""
        return Journal(self._journal_path(key))

    def missing(self) -> list[str]:
        """Return the keys of the chunks that are not done, in order."""
        return [key for key in self.keys if not self.path(key).is_file()]

    def compute(self, callback: Callable[[str], Sequence[Any]], progress: Callable[[int], None] | None = None) -> None:
        """Compute every missing chunk with `callback(key)`, in order. `progress` is called with numbers of finished chunks."""
        with locked(self.directory):
            missing = self.missing()
            if progress is not None:
                progress(len(self.keys) - len(missing))
            for key in missing:
                write_jsonl(self.path(key), callback(key))
                self._journal_path(key).unlink(missing_ok=True)
                if progress is not None:
                    progress(1)

    def read(self, key: str) -> list[Any]:
        """Return the records of one chunk. Raises UserError, naming file and line, for a malformed row."""
        return list(read_jsonl(self.path(key), self.kind))

    def records(self) -> Iterator[Any]:
        """Yield all records, in the order of the keys."""
        for key in self.keys:
            yield from self.read(key)

    def _journal_path(self, key: str) -> Path:
        return self.path(key).with_suffix(".journal")

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
