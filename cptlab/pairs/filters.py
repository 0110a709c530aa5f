"""The filters of Algorithm 1 (CPT IV-D): which samples of a task are paired, and which pairs are candidates.

A new filter is a condition in `filter_samples` or `filter_pairs`, and a count of what it drops in `FilterCounts`. Its
limit is a field of `SelectionOptions` (selection.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cptlab.records import Completion, Quality

# Q is a fraction in floats, so a gap of exactly 1 may come out as 1 + 2e-15. That must not pass "> 0.1".
FLOAT_NOISE = 1e-9


@dataclass(frozen=True)
class FilterCounts:
    """How many samples and pairs each filter dropped. `+` adds the counts of several tasks."""

    tasks: int = 0
    samples: int = 0
    rearranged: int = 0  # samples dropped because the program is not the beginning of what the model wrote
    zero_score: int = 0  # samples dropped by score > 0
    repeated: int = 0  # samples dropped because an identical one was kept
    pairs: int = 0  # pairs of the samples that were kept
    small_gap: int = 0  # pairs dropped by the score gap
    low_similarity: int = 0  # pairs with a gap dropped by the similarity
    candidates: int = 0  # pairs left
    selected: int = 0  # tasks that gave a pair
    both_pass_public: int = 0  # selected pairs in which both programs pass a public test

    def __add__(self, other: FilterCounts) -> FilterCounts:
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return FilterCounts(*(a + b for a, b in zip(mine, others, strict=True)))

    @classmethod
    def merge(cls, counts: Iterable[FilterCounts]) -> FilterCounts:
        return sum(counts, cls())


def written_program(completion: Completion, code: str) -> str | None:
    """Return the program as the model wrote it behind a prompt that ends with `code`.

    None where it is not the beginning of the model's text: it stood behind prose, or lines were moved or left out.
    """
    program = completion.program.removeprefix(code)
    return program if completion.raw.startswith(program) else None


def filter_samples(
    completions: Sequence[Completion], qualities: Sequence[Quality], code: str = ""
) -> tuple[np.ndarray, FilterCounts]:
    """Return the places of the samples to pair, by sample number, and the counts.

    A sample needs Q > 0, and a program that the model wrote in one piece, behind a prompt that ends with `code`. Identical
    programs count once, as the sample with the lowest number.
    """
    whole = [i for i, completion in enumerate(completions) if written_program(completion, code) is not None]
    positive = [i for i in whole if qualities[i].score > 0]
    positive.sort(key=lambda i: completions[i].sample)
    first: dict[str, int] = {}
    for i in positive:
        first.setdefault(completions[i].program, i)
    counts = FilterCounts(
        samples=len(completions),
        rearranged=len(completions) - len(whole),
        zero_score=len(whole) - len(positive),
        repeated=len(positive) - len(first),
    )
    return np.array(list(first.values()), dtype=int), counts


def filter_pairs(
    gaps: np.ndarray, similarities: np.ndarray, *, min_gap: float, min_similarity: float
) -> tuple[np.ndarray, FilterCounts]:
    """Return which pairs are candidates, [pairs] bool, and the counts.

    `gaps` are |dQ|/10 and `similarities` are cosines, one for each pair. A candidate exceeds both limits.
    """
    wide = gaps > min_gap + FLOAT_NOISE
    candidates = wide & (similarities > min_similarity)
    counts = FilterCounts(
        pairs=len(gaps),
        small_gap=int((~wide).sum()),
        low_similarity=int((wide & ~candidates).sum()),
        candidates=int(candidates.sum()),
    )
    return candidates, counts
