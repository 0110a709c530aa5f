"""What models prefer on held-out pairs: for `cptlab prefer`, and at the end of a training run that is asked for it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.shared.common import say_left_out
from cptlab.errors import UserError
from cptlab.records import Pair


def held_out(file: Path, backbone: Any, split: str) -> list[Pair]:
    """Return the pairs of a split of a file, in the tokens of this backbone. Raises UserError where there is none."""
    from cptlab import pairs

    found = pairs.read_pairs(file)
    there = sorted({pair.split for pair in found})
    found = [pair for pair in found if pair.split == split]
    if not found:
        raise UserError(
            f"{file} has no pair of split {split}, only of {', '.join(there)}. Name one of these, or another file."
        )
    if pairs.fit_tokenizer(found, backbone.encode_completion):
        return found
    return [pairs.mask_anew(pair, backbone.encode_completion, backbone.decode) for pair in found]


def preferences(
    config: DictConfig, backbone: Any, policies: Mapping[str, Any], found: Sequence[Pair], positions: int = 0
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[str]]:
    """Return, for each policy by name, accuracy, margin and propensity of all pairs and by message; and what is left out.

    `positions`: those of the context that an adapter takes. Raises UserError where no pair fits.
    """
    from cptlab.analysis.preference.likelihoods import likelihoods
    from cptlab.analysis.preference.messages import pair_messages
    from cptlab.analysis.preference.summary import summarize
    from cptlab.judging.lint.pylint_score import score_programs
    from cptlab.progress import progress_bar
    from cptlab.training.steps.token_pairs import encode_pair

    room = backbone.context_length - positions
    encoded = [(pair, encode_pair(pair, backbone, append_eos=True)) for pair in found]
    fitting = [(pair, tokens) for pair, tokens in encoded if tokens.length <= room]
    left_out = [pair.task_id for pair, tokens in encoded if tokens.length > room]
    say_left_out(left_out, len(found), "pairs")
    if not fitting:
        raise UserError(
            f"None of the {len(found)} pairs fits into the {backbone.context_length} tokens of {backbone.name}. Use shorter "
            "programs, or a backbone with a longer context."
        )
    score = functools.partial(
        score_programs,
        workers=config.workers,
        extra_disabled=tuple(config.extra_disabled),
        cache_dir=Path(config.paths.cache) / "pylint",
    )
    messages = pair_messages([pair for pair, _ in fitting], backbone.encode_completion, backbone.decode, score)
    with progress_bar("reading the pairs", len(fitting), "pairs") as advance:
        read = likelihoods(backbone, policies, [tokens for _, tokens in fitting], progress=advance)
    return {name: summarize(some, messages) for name, some in read.items()}, left_out
