"""What every scorer is, and how a list of programs is scored with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from cptlab.judging.lint.pylint_score import scored_in_order
from cptlab.records import Quality

Items = Iterable[tuple[Any, str]]  # keys with their programs


class Scorer(Protocol):
    """A measure of quality. A frozen dataclass whose fields are its settings."""

    @property
    def name(self) -> str:
        """How tables, figures and metrics call it: letters, digits and underscores."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what its scores depend on beside the program, our code and the installed packages, as plain data."""
        ...

    def check(self) -> None:
        """Raise UserError where its tool is missing or does not take the settings. Called before any work."""
        ...

    def stream(self, items: Items, *, workers: int | None, cache: Path | None) -> Iterator[tuple[Any, Quality]]:
        """Yield (key, quality) for each (key, program), in order of completion, in bounded memory.

        `workers`: processes, None: one per core. `cache`: the directory below which scores are kept; None: nowhere.
        """
        ...


def score_all(
    scorer: Scorer,
    programs: Sequence[str],
    *,
    workers: int | None = None,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Quality]:
    """Return the quality of each program, in order. Equal programs are scored once. `progress` gets numbers of programs."""
    return scored_in_order(
        lambda items, workers: scorer.stream(items, workers=workers, cache=cache), programs, workers, progress
    )
