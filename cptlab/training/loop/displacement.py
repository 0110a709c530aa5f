"""Likelihood displacement: does training raise the better programs, or only push the worse ones down further?

CPT pairs similar programs, where preference losses of this kind are known to lower the likelihood of the preferred
sequence too. What is measured here, over a split, compares the prefix with the backbone alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs


def displacement_sums(outputs: Outputs, terms: dict[str, Tensor], objective: Objective) -> dict[str, float]:
    """What `displacement_metrics` needs, summed over the B pairs of a batch; sums of several batches may be added.

    `terms` are those of `objective` on the batch, [B] each.
    """
    sums = displacement_values(outputs, terms, objective)
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))


def displacement_values(outputs: Outputs, terms: dict[str, Tensor], objective: Objective) -> dict[str, Tensor]:
    """The same as tensors, float64 [] each."""
    mask, code = outputs.mask, outputs.code
    scores = losses.sequence_score(outputs.scores(mask), mask).double()
    before = losses.sequence_score(outputs.reference_scores(mask), mask).double()
    (better, worse), (better_before, worse_before) = scores.chunk(2), before.chunk(2)
    divergence = outputs.kl(code, "policy_reference").double()
    masked_better, masked_worse = mask.sum(-1).chunk(2)
    sums = {
        "pairs": torch.ones_like(better),
        **terms,
        "loss": sum(objective.weighted(terms).values()),
        "delta_a": better - better_before,
        "delta_b": worse - worse_before,
        "masked_a": masked_better,
        "masked_b": masked_worse,
        "fell": better < better_before,
        "ranked": better > worse,
        "ranked_before": better_before > worse_before,
        "margin": better - worse,
        "margin_before": better_before - worse_before,
        "empty_a": masked_better == 0,
        "empty_b": masked_worse == 0,
        "empty": (masked_better == 0) | (masked_worse == 0),
        "kl_masked": losses.kl_loss(divergence, mask & code),
        "kl_unmasked": losses.kl_loss(divergence, code & ~mask),
        "unmasked": (code & ~mask).sum(-1),
    }
    return {name: value.double().sum() for name, value in sums.items()}


def displacement_metrics(sums: dict[str, float]) -> dict[str, float]:
    """The diagnostics of a split, from its summed batches.

    - `loss` and the terms of the objective (`l_…`): means over pairs
    - `delta_a`, `delta_b`: change of s(x_a) and s(x_b) (CPT eq. 9) against the backbone alone, nats per pair;
      `delta_a_per_token`, `delta_b_per_token`: nats per masked token of all pairs together
    - `fell_a`: share of pairs whose s(x_a) is lower than without prefix
    - `accuracy`, `margin`: share of pairs with s(x_a) > s(x_b), and mean difference; `reference_…` without prefix
    - `kl_masked`, `kl_unmasked`: mean KL(policy || reference) per code token of either program, by region
    - `empty_mask_a`, `empty_mask_b`, `empty_mask`: share of pairs in which that mask (either of them) marks nothing
    """
    pairs = sums["pairs"]

    def per_token(name: str, tokens: float) -> float:
        return sums[name] / max(tokens, 1.0)

    means = ("loss", *(name for name in sums if name.startswith("l_")), "delta_a", "delta_b")
    return {
        **{name: sums[name] / pairs for name in means},
        "delta_a_per_token": per_token("delta_a", sums["masked_a"]),
        "delta_b_per_token": per_token("delta_b", sums["masked_b"]),
        "fell_a": sums["fell"] / pairs,
        "accuracy": sums["ranked"] / pairs,
        "margin": sums["margin"] / pairs,
        "reference_accuracy": sums["ranked_before"] / pairs,
        "reference_margin": sums["margin_before"] / pairs,
        "kl_masked": per_token("kl_masked", sums["masked_a"] + sums["masked_b"]),
        "kl_unmasked": per_token("kl_unmasked", sums["unmasked"]),
        "empty_mask_a": sums["empty_a"] / pairs,
        "empty_mask_b": sums["empty_b"] / pairs,
        "empty_mask": sums["empty"] / pairs,
    }


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """The norm of all of them together."""
    return torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients])).item()
