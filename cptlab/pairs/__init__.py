"""Pairs of a better and a worse program for one task, with masks of where they differ (Algorithm 1 of CPT).

    choice, counts = select_pair(task, completions, qualities, verdicts)
    pair = make_pair(task, choice, completions, qualities, backbone.encode_completion, backbone.decode)

`choice` is None if no pair of the task's programs passes the filters.
"""

from cptlab.pairs.dataset import (
    fit_tokenizer,
    make_pair,
    mask_anew,
    pair_statistics,
    read_pairs,
    write_pairs,
)
from cptlab.pairs.filters import FilterCounts
from cptlab.pairs.masks import difference_regions, message_lines, refined_masks, token_lines, token_masks
from cptlab.pairs.mixture import mixture
from cptlab.pairs.names import aligned_names
from cptlab.pairs.recipe import InjectedPairs, MixedPairs, ReadyPairs, RewrittenPairs, SampledPairs, TaskPairs
from cptlab.pairs.selection import Choice, SelectionOptions, no_pairs_left, select_pair
from cptlab.pairs.similarity import cosine_similarities

__all__ = [
    "Choice",
    "FilterCounts",
    "InjectedPairs",
    "MixedPairs",
    "ReadyPairs",
    "RewrittenPairs",
    "SampledPairs",
    "SelectionOptions",
    "TaskPairs",
    "aligned_names",
    "cosine_similarities",
    "difference_regions",
    "fit_tokenizer",
    "make_pair",
    "mask_anew",
    "message_lines",
    "mixture",
    "no_pairs_left",
    "pair_statistics",
    "read_pairs",
    "refined_masks",
    "select_pair",
    "token_lines",
    "token_masks",
    "write_pairs",
]
