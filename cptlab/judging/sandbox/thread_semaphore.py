"""Semaphores of multiprocessing where /dev/shm is closed: at level landlock, which has no /dev/shm of its own.

multiprocessing.dummy and ThreadPool make locks that could be shared between processes, as POSIX semaphores in /dev/shm.
A judged program has no other processes, so a semaphore for threads does the same.
"""

from __future__ import annotations

from _thread import get_ident
from typing import Any

_RECURSIVE = 0  # multiprocessing.synchronize.RECURSIVE_MUTEX; the other kind is a semaphore


def replace_semaphores() -> None:
    """Give multiprocessing semaphores for the threads of one process, in this process and its children."""
    try:
        import _multiprocessing
    except ImportError:  # a build of Python without it
        return
    setattr(_multiprocessing, "SemLock", ThreadSemaphore)  # noqa: B010 (typeshed has it fixed)


class ThreadSemaphore:
    """What `_multiprocessing.SemLock` offers, for threads alone."""

    SEM_VALUE_MAX = (1 << 31) - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        import threading

        self.kind, self.maxvalue, self.handle = kind, maxvalue, id(self)
        self.name = None if unlink else name
        self._value, self._held, self._last = value, 0, 0
        self._changed = threading.Condition()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        if self.kind == _RECURSIVE and self._is_mine():
            self._held += 1
            return True
        seconds = (None if timeout is None else max(0.0, timeout)) if block else 0.0
        with self._changed:
            if not self._changed.wait_for(lambda: self._value > 0, seconds):
                return False
            self._value, self._held, self._last = self._value - 1, self._held + 1, get_ident()
            return True

    def release(self) -> None:
        if self.kind == _RECURSIVE:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        with self._changed:
            if self._value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self._value, self._held = self._value + 1, self._held - 1
            self._changed.notify()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._last == get_ident()

    def _get_value(self) -> int:
        return self._value

    def _is_zero(self) -> bool:
        return self._value == 0

    def _after_fork(self) -> None:
        self._held = 0
