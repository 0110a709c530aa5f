"""Algorithm 1 of CPT: pairs of a better and a worse program for one task, with masks of where they differ.

    choice, counts = select_pair(task, completions, qualities, verdicts)
    pair = make_pair(task, choice, completions, qualities, backbone.encode_completion, backbone.decode)

where `choice` is None if no pair of the task's programs gets through the filters.
"""

from cptlab.pairs.dataset import (
    make_pair,
    pair_statistics,
    read_pairs,
    write_pairs,
)
from cptlab.pairs.masks import difference_regions, message_lines, refined_masks, token_lines, token_masks
from cptlab.pairs.recipe import ReadyPairs, SampledPairs
from cptlab.pairs.selection import Choice, FilterCounts, SelectionOptions, no_pairs_left, select_pair
from cptlab.pairs.similarity import cosine_similarities
from cptlab.storage.chunk_store import ChunkStore

__all__ = [
    "Choice",
    "ChunkStore",
    "FilterCounts",
    "ReadyPairs",
    "SampledPairs",
    "SelectionOptions",
    "cosine_similarities",
    "difference_regions",
    "make_pair",
    "message_lines",
    "no_pairs_left",
    "pair_statistics",
    "read_pairs",
    "refined_masks",
    "select_pair",
    "token_lines",
    "token_masks",
    "write_pairs",
]
