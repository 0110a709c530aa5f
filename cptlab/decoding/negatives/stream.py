"""A second stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stream:
    """The prompt tokens of a second stream. `with_prefix` says whether it shares the first stream's prefix, if any."""

    ids: list[int]
    with_prefix: bool = True
