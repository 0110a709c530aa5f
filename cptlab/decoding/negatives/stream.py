"""What a second stream reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stream:
    """The prompt tokens of a second stream, and whether it has the prefix that the first stream has, if that has one."""

    ids: list[int]
    with_prefix: bool = True
