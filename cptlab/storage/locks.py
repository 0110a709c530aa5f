"""A lock between processes that share a directory."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(directory: Path, *, shared: bool = False, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Make `directory` and hold it against other processes that use `locked`; they wait, a killed one lets go.

    `shared`: any number of such holders at once, but none together with one that is not. `waiting` is called once,
    where somebody else holds the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with open(directory / "lock", "a+") as file:  # NFS asks for a file that is open for reading and writing
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, kind)
        yield
