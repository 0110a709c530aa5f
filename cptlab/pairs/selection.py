"""Algorithm 1: from the samples of one task to its pair of a better and a worse program (CPT IV-D).

Keep Q > 0; of all pairs keep |dQ|/10 > 0.1 and cosine > 0.4; sort by 0.7 * |dQ|/10 + 0.3 * cosine (eq. 14); take the
first pair whose programs both pass at least one essential (public) test, else the first of all. A is the better one.

What the paper leaves open: identical samples count once (their pairs would be ties); equal scores are settled by the
better program's sample number, then by the worse one's, lower first, so the order of the input does not matter.

`prefer="similarity"` is ours: the same filters, but pairs are sorted by cosine, then by combined score.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cptlab.errors import UserError
from cptlab.pairs.similarity import cosine_similarities
from cptlab.records import Completion, Quality, Task, Verdict
from cptlab.settings.setting import Setting, check_settings

# Q is a fraction in floats, so a gap of exactly 1 may come out as 1 + 2e-15; it must not pass "> 0.1" by that.
FLOAT_NOISE = 1e-9


@dataclass(frozen=True)
class SelectionOptions:
    """The constants of Algorithm 1. Raises UserError for a value that is out of its range."""

    min_gap: Annotated[float, Setting("A pair's score gap / 10 must exceed it.", at_least=0, below=1)] = 0.1
    min_similarity: Annotated[float, Setting("A pair's cosine similarity must exceed it.", at_least=0, below=1)] = 0.4
    beta1: Annotated[float, Setting("Weight of the score gap / 10 in the combined score.")] = 0.7
    beta2: Annotated[float, Setting("Weight of the similarity in the combined score.")] = 0.3
    prefer: Annotated[
        str,
        Setting(
            "Sort pairs by the combined score, or the most similar first (not the paper's).",
            choices=("score", "similarity"),
        ),
    ] = "score"

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class FilterCounts:
    """What became of the samples, and of the pairs of programs; `+` merges the counts of several tasks."""

    tasks: int = 0
    samples: int = 0
    zero_score: int = 0  # samples dropped by score > 0
    repeated: int = 0  # samples dropped as identical to another one that was kept
    pairs: int = 0  # pairs of the programs that were kept
    small_gap: int = 0  # pairs dropped by the score gap
    low_similarity: int = 0  # pairs dropped by the cosine, of those with a gap
    candidates: int = 0  # pairs left
    selected: int = 0  # tasks that gave a pair
    both_pass_public: int = 0  # ... in which both programs pass an essential test

    def __add__(self, other: FilterCounts) -> FilterCounts:
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return FilterCounts(*(a + b for a, b in zip(mine, others, strict=True)))

    @classmethod
    def merge(cls, counts: Iterable[FilterCounts]) -> FilterCounts:
        return sum(counts, cls())


@dataclass(frozen=True)
class Choice:
    """The selected pair, as places in the sequences given to `select_pair`."""

    better: int
    worse: int
    similarity: float
    combined_score: float
    both_pass_public: bool


def select_pair(
    task: Task,
    completions: Sequence[Completion],
    qualities: Sequence[Quality],
    verdicts: Sequence[Verdict],
    options: SelectionOptions = SelectionOptions(),
) -> tuple[Choice | None, FilterCounts]:
    """Algorithm 1, lines 6-24, for one task; the three sequences speak of the same samples in the same order.

    None where no pair is left. Identical programs must have equal scores and verdicts.
    """
    assert len(completions) == len(qualities) == len(verdicts)
    assert all(completion.task_id == task.id for completion in completions)
    positive = [i for i, quality in enumerate(qualities) if quality.score > 0]
    positive.sort(key=lambda i: completions[i].sample)
    first: dict[str, int] = {}
    for i in positive:
        first.setdefault(completions[i].program, i)
    kept = np.array(list(first.values()), dtype=int)  # by sample number

    scores = np.array([qualities[i].score for i in kept])
    left, right = np.triu_indices(len(kept), k=1)
    better = np.where(scores[left] >= scores[right], left, right)
    worse = left + right - better
    gaps = (scores[better] - scores[worse]) / 10
    similarities = cosine_similarities(list(first))[left, right]
    wide = gaps > options.min_gap + FLOAT_NOISE
    candidate = wide & (similarities > options.min_similarity)

    counts = FilterCounts(
        tasks=1,
        samples=len(completions),
        zero_score=len(completions) - len(positive),
        repeated=len(positive) - len(kept),
        pairs=len(left),
        small_gap=int((~wide).sum()),
        low_similarity=int((wide & ~candidate).sum()),
        candidates=int(candidate.sum()),
    )
    if not candidate.any():
        return None, counts

    passing = np.array([verdicts[i].public_passed > 0 for i in kept])
    both = candidate & passing[left] & passing[right]
    pool = np.flatnonzero(both if both.any() else candidate)
    combined = options.beta1 * gaps + options.beta2 * similarities
    preferred = combined if options.prefer == "score" else similarities
    order = np.lexsort((worse[pool], better[pool], -combined[pool], -preferred[pool]))  # sorts by its last key first
    best = pool[order[0]]
    choice = Choice(
        better=int(kept[better[best]]),
        worse=int(kept[worse[best]]),
        similarity=float(similarities[best]),
        combined_score=float(combined[best]),
        both_pass_public=bool(both[best]),
    )
    return choice, dataclasses.replace(counts, selected=1, both_pass_public=int(choice.both_pass_public))


def no_pairs_left(counts: FilterCounts, options: SelectionOptions) -> UserError:
    """The error for a data set without a pair: how many each filter dropped, and what to do."""
    return UserError(
        f"No pairs are left: {counts.samples} samples of {counts.tasks} tasks, {counts.zero_score} dropped by "
        f"score > 0 and {counts.repeated} as repeats; of the {counts.pairs} pairs of the rest, {counts.small_gap} "
        f"dropped by score gap / 10 > {options.min_gap:g} and {counts.low_similarity} by "
        f"similarity > {options.min_similarity:g}. Take more tasks or more samples per task, or lower the limit "
        "that dropped the most."
    )
