"""Import noisy libraries with their warnings silenced."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def only_errors_of(name: str) -> Iterator[None]:
    """Within it, the logger of that name, and those below it, let only errors through."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
