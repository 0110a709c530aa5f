"""Make the next item in a thread while one is in use: a device then does not wait for the host to lay out and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def read_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """Yield `make(item)` of each item, in their order. Two are held at most: the one in use and the next.

    What `make` raises is raised in the place of its item.
    """
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        ready = None
        for item in items:
            coming = thread.submit(make, item)
            if ready is not None:
                yield ready.result()
            ready = coming
        if ready is not None:
            yield ready.result()
