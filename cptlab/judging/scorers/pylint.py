"""The papers' scorer: pylint (CPT eq. 15), as lint/pylint_score.py computes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cptlab.judging.lint.pylint_checks import check_names
from cptlab.judging.lint.pylint_score import score_stream
from cptlab.judging.scorers.scorer import Items
from cptlab.records import Quality
from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class Pylint:
    """Q = max(0, 10 - 10 (5 E + W + R + C) / S)."""

    extra_disabled: Annotated[Sequence[str], Setting("Checks to leave out beside the frozen list.")] = ()
    name = "pylint"

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "extra_disabled", tuple(self.extra_disabled))

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "extra_disabled": sorted(self.extra_disabled)}

    def check(self) -> None:
        check_names(self.extra_disabled)

    def stream(self, items: Items, *, workers: int | None, cache: Path | None) -> Iterator[tuple[Any, Quality]]:
        cache_dir = None if cache is None else cache / "pylint"
        return score_stream(items, workers=workers, extra_disabled=self.extra_disabled, cache_dir=cache_dir)
