"""The losses of comparative prefix-tuning and of its baselines, as printed, on tensors alone.

Equation numbers without a name are CPT's (arXiv 2503.09020). Shapes: B sequences of at most C code tokens each, V the
vocabulary. A code token is a token of the completion, or the end-of-text token after it; the instruction is not here
at all, and padding is whatever a mask leaves out. Masks are bool [B, C]. `logits[:, t]` predicts code token t. Every
loss is one number per sequence or pair, [B].

An empty mask gives 0, with zero gradient, under both reductions.

SVEN, whose code CPT grew from, differs from the printed equations: its LM and KL terms are means over the positions
they select, and its KL is KL(reference || policy). `reduction="mean"` and `direction="reference_policy"` are those. The
ranking loss compares sums in either case (eq. 9).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

REDUCTIONS = ("sum", "mean")
KL_DIRECTIONS = ("policy_reference", "reference_policy")


def log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities over the last dimension, in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def token_log_probs(log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    """log P(x_t | x_<t, I, H) [B, C] of `tokens` [B, C], given log-probabilities [B, C, V]."""
    return log_probabilities.gather(-1, tokens[..., None])[..., 0]


def sequence_score(token_scores: Tensor, mask: Tensor) -> Tensor:
    """s(x) [B]: the sum of token log-probabilities where `mask` is set (eq. 9; eq. 7 with a full mask)."""
    return token_scores.masked_fill(~mask, 0).sum(-1)


def rank_loss(better_score: Tensor, worse_score: Tensor) -> Tensor:
    """-log sigmoid(s(x_a) - s(x_b)) (eq. 8)."""
    return functional.softplus(worse_score - better_score)


def lm_loss(token_scores: Tensor, mask: Tensor, reduction: str = "sum") -> Tensor:
    """Minus the log-probability of x_a on its masked tokens (eq. 10)."""
    return -_reduce(token_scores, mask, reduction)


def nll_loss(token_scores: Tensor, code: Tensor, reduction: str = "sum") -> Tensor:
    """Minus the log-probability of x_a on all its code tokens (eq. 13, the second stage)."""
    return -_reduce(token_scores, code, reduction)


def position_kl(policy: Tensor, reference: Tensor, direction: str = "policy_reference") -> Tensor:
    """KL divergence at every position [B, C], from log-probabilities [B, C, V]: what eq. 11 sums up."""
    assert direction in KL_DIRECTIONS
    of, to = (policy, reference) if direction == "policy_reference" else (reference, policy)
    return (of.exp() * (of - to)).sum(-1)


def kl_loss(divergence: Tensor, kept: Tensor, reduction: str = "sum") -> Tensor:
    """The divergences [B, C] where `kept` is set: code tokens that are not masked, 1 - m_t (eq. 11)."""
    return _reduce(divergence, kept, reduction)


def hinge_loss(score: Tensor, reference_score: Tensor) -> Tensor:
    """max(0, s_ref(x) - s(x)): how far the score fell below the backbone's (the penalty of DPOP, arXiv 2402.13228)."""
    return (reference_score - score).clamp(min=0)


def contrastive_loss(own: Tensor, other: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """-log(P_c / (P_c + P_not_c)) on the masked tokens (SVEN, arXiv 2302.05319).

    `own` and `other` are token log-probabilities [B, C] under the program's own prefix and under the opposite one.
    """
    return _reduce(-functional.logsigmoid(own - other), mask, reduction)


def mean_score(token_scores: Tensor, code: Tensor) -> Tensor:
    """log P(x) / |x| [B], the mean token log-probability (SimPO's and ORPO's score)."""
    return _reduce(token_scores, code, "mean")


def dpo_loss(better_ratio: Tensor, worse_ratio: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (r_a - r_b)), r = s - s_ref the log-ratio to the backbone (DPO, arXiv 2305.18290, eq. 7)."""
    return -functional.logsigmoid(beta * (better_ratio - worse_ratio))


def dpop_loss(better_ratio: Tensor, worse_ratio: Tensor, beta: float, penalty: float) -> Tensor:
    """-log sigmoid(beta [r_a - r_b - penalty * max(0, -r_a)]) (DPOP, arXiv 2402.13228, eq. 3)."""
    fell = (-better_ratio).clamp(min=0)
    return -functional.logsigmoid(beta * (better_ratio - worse_ratio - penalty * fell))


def simpo_loss(better_mean: Tensor, worse_mean: Tensor, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta (mean s_a - mean s_b) - gamma) (SimPO, arXiv 2405.14734, eq. 6)."""
    return -functional.logsigmoid(beta * (better_mean - worse_mean) - gamma)


def odds_ratio_loss(better_mean: Tensor, worse_mean: Tensor) -> Tensor:
    """-log sigmoid(log odds_a - log odds_b), odds = P / (1 - P), P = exp(mean s) (ORPO, arXiv 2403.07691, eq. 7)."""
    better_odds, worse_odds = (mean - log1mexp(mean) for mean in (better_mean, worse_mean))
    return -functional.logsigmoid(better_odds - worse_odds)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x <= 0, exact at both ends (Maechler 2012).

    x is held one rounding step below 0, for a program of probability 1 has infinite odds, with no gradient.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    return torch.where(x > -math.log(2), (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def _reduce(values: Tensor, mask: Tensor, reduction: str) -> Tensor:
    assert reduction in REDUCTIONS
    total = values.masked_fill(~mask, 0).sum(-1)
    return total if reduction == "sum" else total / mask.sum(-1).clamp(min=1)
