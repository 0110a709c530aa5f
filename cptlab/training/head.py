"""What the losses need of the head, a few rows at a time, so that memory does not grow with rows × vocabulary.

The head is frozen, so the derivative of a log-probability or of a divergence with respect to the hidden state that it
comes from is one row of the hidden size, whatever the loss makes of the number later. It is taken in the forward pass,
while the logits of a chunk are there, and scaled in the backward pass: no logits are kept and none computed twice.

    d log P(x) / dh       = (onehot(x) - p) W
    d KL(p || q) / dh     = (p ⊙ (log p - log q - KL)) W
    d KL(q || p) / dh     = (p - q) W

p = softmax(W h + b) is the policy, q the reference, W [V, E] the head's weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cptlab.training.losses import log_probs

CHUNK = 1 << 23  # logits at a time
CACHED = 1 << 18  # logits that go through all passes of a softmax before the next do: a CPU's cache holds them
OFF_CPU = 4  # times as many logits elsewhere, where a product of few rows does not pay


def token_scores(hidden: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
    """log P(targets) [N] of the hidden states [N, E] that predict `targets` [N]; differentiable once."""
    return _TokenScores.apply(hidden, targets, head)


def position_kl(hidden: Tensor, reference: Tensor, head: nn.Linear, direction: str) -> Tensor:
    """KL [N] between the policy's and the reference's hidden states [N, E]; differentiable once, in `hidden`.

    `direction` is one of `losses.KL_DIRECTIONS`.
    """
    return _PositionKL.apply(hidden, reference, head, direction)


def _pieces(rows: int, numbers: int, vocabulary: int) -> list[slice]:
    """Slices of `rows` rows that have about so many numbers, or one row."""
    size = max(1, numbers // vocabulary)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _chunks(hidden: Tensor, head: nn.Linear) -> list[slice]:
    numbers = CHUNK if hidden.device.type == "cpu" else OFF_CPU * CHUNK
    return _pieces(len(hidden), numbers, head.weight.shape[0])


def _blocks(logits: Tensor) -> list[slice]:
    return _pieces(len(logits), CACHED if logits.device.type == "cpu" else CHUNK, logits.shape[1])


def _logits(hidden: Tensor, head: nn.Linear) -> Tensor:
    return functional.linear(hidden.to(head.weight.dtype), head.weight, head.bias)


def _number_per_row(hidden: Tensor, head: nn.Linear) -> Tensor:
    return hidden.new_empty(len(hidden), dtype=torch.promote_types(head.weight.dtype, torch.float32))


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, targets, head):
        scores = _number_per_row(hidden, head)
        derivative = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows in _chunks(hidden, head):
            logits = _logits(hidden[rows], head)
            for block in _blocks(logits):
                policy, target = log_probs(logits[block]), targets[rows][block, None]
                scores[rows][block] = policy.gather(1, target)[:, 0]
                if derivative is not None:
                    gradient = policy.exp_().neg_()
                    gradient.scatter_add_(1, target, torch.ones_like(target, dtype=gradient.dtype))
                    logits[block] = gradient  # no logit is needed twice
            if derivative is not None:
                derivative[rows] = (logits @ head.weight).to(hidden.dtype)
            del logits  # before the next chunk's are made
        ctx.save_for_backward(derivative)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (derivative,) = ctx.saved_tensors
        return (gradient[:, None] * derivative).to(derivative.dtype), None, None


class _PositionKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, reference, head, direction):
        divergence = _number_per_row(hidden, head)
        derivative = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows in _chunks(hidden, head):
            logits, others = _logits(hidden[rows], head), _logits(reference[rows], head)
            for block in _blocks(logits):
                log_p, log_q = log_probs(logits[block]), log_probs(others[block])
                if direction == "policy_reference":
                    difference = log_q.neg_().add_(log_p)
                    p = log_p.exp_()
                    kl = divergence[rows][block] = (p * difference).sum(-1)
                    if derivative is not None:
                        logits[block] = difference.sub_(kl[:, None]).mul_(p)  # no logit is needed twice
                else:
                    q = log_q.exp()
                    divergence[rows][block] = (q * log_q.sub_(log_p)).sum(-1)
                    if derivative is not None:
                        logits[block] = log_p.exp_().sub_(q)
            if derivative is not None:
                derivative[rows] = (logits @ head.weight).to(hidden.dtype)
            del logits, others  # before the next chunk's are made
        ctx.save_for_backward(derivative)
        return divergence

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (derivative,) = ctx.saved_tensors
        return (gradient[:, None] * derivative).to(derivative.dtype), None, None, None
