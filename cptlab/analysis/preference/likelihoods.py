"""Log-probabilities of the programs of pairs, token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from cptlab.adapters import Policy
from cptlab.backbone import Backbone
from cptlab.training.steps.batches import collate
from cptlab.training.steps.packing import token_budget_groups
from cptlab.training.steps.plain import PlainOutputs
from cptlab.training.steps.token_pairs import TokenPair

Likelihoods = tuple[list[float], list[float]]  # of the better and of the worse program, a number per token, in nats


@torch.no_grad()
def likelihoods(
    backbone: Backbone,
    policies: Mapping[str, Policy],
    pairs: Sequence[TokenPair],
    *,
    token_budget: int = 4096,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, list[Likelihoods]]:
    """Return log P(token | instruction, tokens before it) of both programs of every pair, for each of `policies` by name.

    The closing line and the end-of-text token count where a program has them. `progress` gets numbers of finished pairs.
    """
    found: dict[str, list[Likelihoods | None]] = {name: [None] * len(pairs) for name in policies}
    for group in token_budget_groups([2 * pair.length for pair in pairs], token_budget):
        batch = collate([pairs[place] for place in group], backbone.pad_id).to(backbone.device)
        for name, policy in policies.items():
            scores = PlainOutputs(backbone, batch, [policy]).scores(batch.code).cpu()
            for row, place in enumerate(group):
                better, worse = pairs[place].better[0], pairs[place].worse[0]
                found[name][place] = (
                    scores[row, : len(better)].tolist(),
                    scores[len(group) + row, : len(worse)].tolist(),
                )
        progress(len(group))
    return {name: [one for one in some if one is not None] for name, some in found.items()}
