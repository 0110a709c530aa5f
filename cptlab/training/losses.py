"""The losses of comparative prefix-tuning, as printed (CPT, arXiv 2503.09020, eq. 6 to 13), on tensors alone.

Shapes: B sequences of at most C code tokens each, V the vocabulary. A code token is a token of the completion, or the
end-of-text token after it; the instruction is not here at all, and padding is whatever a mask leaves out. Masks are
bool [B, C]. `logits[:, t]` predicts code token t. Every loss is one number per sequence or pair, [B].

An empty mask gives 0, with zero gradient, under both reductions.

SVEN, whose code CPT grew from, differs from the printed equations: its LM and KL terms are means over the positions
they select, and its KL is KL(reference || policy). `reduction="mean"` and `direction="reference_policy"` are those. The
ranking loss compares sums in either case (eq. 9).
"""

from __future__ import annotations

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
    """s(x) [B]: the sum of token log-probabilities where `mask` is set (CPT eq. 9; eq. 7 with a full mask)."""
    return token_scores.masked_fill(~mask, 0).sum(-1)


def rank_loss(better_score: Tensor, worse_score: Tensor) -> Tensor:
    """-log sigmoid(s(x_a) - s(x_b)) (CPT eq. 8)."""
    return functional.softplus(worse_score - better_score)


def lm_loss(token_scores: Tensor, mask: Tensor, reduction: str = "sum") -> Tensor:
    """Minus the log-probability of x_a on its masked tokens (CPT eq. 10)."""
    return -_reduce(token_scores, mask, reduction)


def nll_loss(token_scores: Tensor, code: Tensor, reduction: str = "sum") -> Tensor:
    """Minus the log-probability of x_a on all its code tokens (CPT eq. 13, the second stage)."""
    return -_reduce(token_scores, code, reduction)


def position_kl(policy: Tensor, reference: Tensor, direction: str = "policy_reference") -> Tensor:
    """KL divergence at every position [B, C], from log-probabilities [B, C, V]: what CPT eq. 11 sums up."""
    assert direction in KL_DIRECTIONS
    of, to = (policy, reference) if direction == "policy_reference" else (reference, policy)
    return (of.exp() * (of - to)).sum(-1)


def kl_loss(divergence: Tensor, kept: Tensor, reduction: str = "sum") -> Tensor:
    """The divergences [B, C] where `kept` is set: code tokens that are not masked, 1 - m_t (CPT eq. 11)."""
    return _reduce(divergence, kept, reduction)


def _reduce(values: Tensor, mask: Tensor, reduction: str) -> Tensor:
    assert reduction in REDUCTIONS
    total = values.masked_fill(~mask, 0).sum(-1)
    return total if reduction == "sum" else total / mask.sum(-1).clamp(min=1)
