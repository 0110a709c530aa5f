"""Locks between processes that share a directory.

    with locked(directory): ...          # wait for whoever holds it; for work that others can wait for
    lock = try_lock(directory)           # or do not wait: None if another process holds it
    lock.release()

Several parts of a directory are held one by one under names of their own: `locked(directory, name="00003.lock")`.

Take one around every change that two processes must not make at once. A killed process lets go, and a process that is
forked while a lock is held does not hold it: its copy of the lock file is closed at once.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cptlab.storage.damaged import LOCK_FILE, set_aside

_held: weakref.WeakSet[TextIO] = weakref.WeakSet()


class Lock:
    """A directory that is held until `release`, or until this object or this process ends."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        _held.add(file)

    def release(self) -> None:
        """Let go. A second call does nothing."""
        _held.discard(self._file)
        self._file.close()


def try_lock(directory: Path, *, shared: bool = False, name: str = LOCK_FILE) -> Lock | None:
    """Make `directory` and hold it, or return None if another process holds it."""
    file = _open(directory, name)
    try:
        fcntl.flock(file, _kind(shared) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return Lock(file)


def is_locked(directory: Path) -> bool:
    """Whether another process holds `directory`, as far as this user may know. Makes nothing."""
    try:
        with open(directory / LOCK_FILE, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def locked(
    directory: Path, *, shared: bool = False, waiting: Callable[[], None] | None = None, name: str = LOCK_FILE
) -> Iterator[None]:
    """Make `directory` and hold it within the block; wait while another process holds it.

    `shared`: any number of such holders at once, but none together with one that is not. `waiting` is called once, if
    another process holds the directory. `name`: of the lock file in the directory.
    """
    lock = try_lock(directory, shared=shared, name=name)
    if lock is None:
        if waiting is not None:
            waiting()
        file = _open(directory, name)
        fcntl.flock(file, _kind(shared))
        lock = Lock(file)
    try:
        yield
    finally:
        lock.release()


def _open(directory: Path, name: str) -> TextIO:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    if path.is_dir():
        set_aside(path, "it is a directory")
    return open(path, "a+")  # NFS asks for a file that is open for reading and writing


def _kind(shared: bool) -> int:
    return fcntl.LOCK_SH if shared else fcntl.LOCK_EX


def _close_all() -> None:
    for file in list(_held):
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_close_all)
