"""Several scorers that should all be satisfied: the log-sigmoid combination of rewards (arXiv 2402.00742).

    u = sum_i log sigmoid(r_i - r_ref_i)

A program that is bad in one respect cannot make up for it in another: each term is close to 0 above its reference and falls
without end below it. r_ref_i is a quantile of the scores of the base model's programs, over all tasks together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from cptlab.errors import UserError
from cptlab.judging.scorers.combination import BATCH, check_parts, qualities_of_parts
from cptlab.judging.scorers.scorer import Items, Scorer, score_all
from cptlab.records import Completion, Quality
from cptlab.settings.setting import Part, Setting, check_settings
from cptlab.storage.checksums import file_digest
from cptlab.storage.jsonl import is_stored, read_jsonl

COMPLETIONS = "completions.jsonl"


@dataclass(frozen=True)
class AllOf:
    """Q = 10 exp(u / m), m the number of scorers: 10 times the geometric mean of sigmoid(r_i - r_ref_i)."""

    scorers: Annotated[Mapping[str, Scorer], Part(many="names")]
    base: Annotated[
        str | None,
        Setting(
            "Programs of the base model: the folder of a system in an evaluation, such as logs/evaluate/runs/…/base."
        ),
    ] = None
    quantile: Annotated[float, Setting("The quantile of their scores that is r_ref.", at_least=0, at_most=1)] = 0.5
    references: Annotated[
        Mapping[str, float] | None, Setting("r_ref by scorer, in the place of base, such as {pylint: 8.5, ruff: 9}.")
    ] = None
    name = "all_of"

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "scorers", check_parts(self.scorers))
        if (self.base is None) == (self.references is None):
            raise UserError(
                "all_of needs the scores of the base model: scorer.base=<folder of a system in an evaluation>, or "
                "scorer.references with a number for each scorer. Give one of the two."
            )
        if self.references is not None:
            found = {str(name): float(value) for name, value in self.references.items()}
            if set(found) != set(self.scorers):
                raise UserError(
                    f"scorer.references is about {', '.join(found)}, and the scorers are {', '.join(self.scorers)}. Give "
                    "each scorer its number."
                )
            object.__setattr__(self, "references", found)

    @cached_property
    def base_file(self) -> Path:
        """The file of the base model's programs. Raises UserError where it is not there."""
        path = Path(self.base or "") / COMPLETIONS
        if not is_stored(path):
            raise UserError(f"There is no {path}. Give scorer.base the folder of a system in an evaluation.")
        return path

    def identity(self) -> dict[str, Any]:
        parts = {name: one.identity() for name, one in self.scorers.items()}
        base = self.references if self.base is None else [self._base_digest, self.quantile]
        return {"name": self.name, "scorers": parts, "references": base}

    @cached_property
    def _base_digest(self) -> str:
        path = self.base_file
        return str(file_digest(path if path.is_file() else path.with_name(f"{path.name}.gz")))

    def check(self) -> None:
        for one in self.scorers.values():
            one.check()
        if self.base is not None:
            _ = self.base_file

    def reference_scores(self, workers: int | None, cache: Path | None) -> dict[str, float]:
        """Return r_ref of each scorer."""
        if self.references is not None:
            return dict(self.references)
        programs = [one.program for one in read_jsonl(self.base_file, Completion)]
        found = {}
        for name, one in self.scorers.items():
            scores = [quality.score for quality in score_all(one, programs, workers=workers, cache=cache)]
            found[name] = float(np.quantile(scores, self.quantile))
        return found

    def stream(self, items: Items, *, workers: int | None, cache: Path | None) -> Iterator[tuple[Any, Quality]]:
        references = self.reference_scores(workers, cache)
        items = iter(items)
        while some := list(itertools.islice(items, BATCH)):
            for (key, _), found in zip(some, qualities_of_parts(self.scorers, some, workers, cache), strict=True):
                first = next(iter(found.values()))
                messages = tuple(message for one in found.values() for message in one.messages)
                fatal = any(one.fatal for one in found.values())
                utility = sum(log_sigmoid(one.score - references[name]) for name, one in found.items())
                whole = not fatal and all(one.statements for one in found.values())
                score = 10 * math.exp(utility / len(found)) if whole else 0.0
                pragmas = max(one.pragmas for one in found.values())
                yield key, Quality(score, first.statements, fatal, messages, pragmas, self.name)


def log_sigmoid(x: float) -> float:
    """Return log(1 / (1 + exp(-x))) without overflow."""
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))
