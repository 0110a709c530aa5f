"""Algorithm 1: select the pair of a better and a worse program from the samples of one task (CPT IV-D).

Filter samples and pairs (filters.py), sort the pairs by 0.7 * |dQ|/10 + 0.3 * cosine (eq. 14), and take the first pair
whose programs both pass at least one essential (public) test. Without such a pair, take the first of all.

The paper leaves two things open. Identical samples count once, because their pairs would be ties. The sample number of
the better program, then that of the worse one, settles equal scores, lower first, so the order of the input does not
matter.

Not in the paper: `prefer="similarity"` sorts the pairs by cosine, `prefer="ches"` by CHES, lowest first (ches.py), then
each by combined score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from cptlab.errors import UserError
from cptlab.pairs.ches import ches_scores
from cptlab.pairs.filters import FilterCounts, filter_pairs, filter_samples
from cptlab.pairs.similarity import cosine_similarities
from cptlab.records import Completion, Quality, Task, Verdict
from cptlab.settings.setting import Setting, check_settings


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
            "Sort pairs by the combined score, or (not the paper's) the most similar first, or those first that CHES (arXiv "
            "2410.08847) predicts the least likelihood displacement for.",
            choices=("score", "similarity", "ches"),
        ),
    ] = "score"

    def __post_init__(self) -> None:
        check_settings(self)
        if self.beta1 == self.beta2 == 0:
            raise UserError("With beta1=0 and beta2=0 all pairs are equal. Set one of them to another value.")

    def combined(self, gap: Any, similarity: Any) -> Any:
        """Return the combined score (eq. 14) of gaps |dQ|/10 and cosines: numbers, or arrays of them."""
        return self.beta1 * gap + self.beta2 * similarity


@dataclass(frozen=True)
class Choice:
    """The selected pair. `better` and `worse` are places in the sequences given to `select_pair`."""

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
    embed: Callable[[Sequence[int]], np.ndarray] | None = None,
) -> tuple[Choice | None, FilterCounts]:
    """Run Algorithm 1, lines 6-24, for one task. The three sequences are about the same samples in the same order.

    Return the pair, or None where no pair passes the filters, and the counts of the filters. Identical programs must
    have equal scores and verdicts. `embed`, which `prefer="ches"` needs, returns the mean hidden embeddings, [samples, E],
    of the completions at these places.
    """
    assert len(completions) == len(qualities) == len(verdicts)
    assert all(completion.task_id == task.id for completion in completions)
    kept, sample_counts = filter_samples(completions, qualities, task.prompt.code)
    scores = np.array([qualities[i].score for i in kept])
    left, right = np.triu_indices(len(kept), k=1)
    better = np.where(scores[left] >= scores[right], left, right)
    worse = left + right - better
    gaps = (scores[better] - scores[worse]) / 10
    similarities = cosine_similarities([completions[i].program for i in kept])[left, right]
    candidate, pair_counts = filter_pairs(
        gaps, similarities, min_gap=options.min_gap, min_similarity=options.min_similarity
    )
    counts = FilterCounts(tasks=1) + sample_counts + pair_counts
    if not candidate.any():
        return None, counts

    passing = np.array([verdicts[i].public_passed > 0 for i in kept])
    both = candidate & passing[left] & passing[right]
    pool = np.flatnonzero(both if both.any() else candidate)
    combined = options.combined(gaps, similarities)
    preferred = {"score": combined, "similarity": similarities}.get(options.prefer)
    if preferred is None:
        assert embed is not None
        preferred = -ches_scores(embed([int(i) for i in kept]))[better, worse]
    order = np.lexsort((worse[pool], better[pool], -combined[pool], -preferred[pool]))  # the last key counts first
    best = pool[order[0]]
    choice = Choice(
        better=int(kept[better[best]]),
        worse=int(kept[worse[best]]),
        similarity=float(similarities[best]),
        combined_score=float(combined[best]),
        both_pass_public=bool(both[best]),
    )
    return choice, counts + FilterCounts(selected=1, both_pass_public=int(choice.both_pass_public))


def no_pairs_left(counts: FilterCounts, options: SelectionOptions) -> UserError:
    """Return the error for a data set without a pair. It says how much each filter dropped, and what to do."""
    return UserError(
        f"No pairs are left: {counts.samples} samples of {counts.tasks} tasks, {counts.rearranged} dropped as not written in "
        f"one piece, {counts.zero_score} by score > 0 and {counts.repeated} as repeats; of the {counts.pairs} pairs of the rest, {counts.small_gap} "
        f"dropped by score gap / 10 > {options.min_gap:g} and {counts.low_similarity} by "
        f"similarity > {options.min_similarity:g}. Take more tasks or more samples per task, or lower the limit "
        "that dropped the most."
    )
