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

CHUNK = 1 << 22  # logits at a time


def token_scores(hidden: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
    """log P(targets) [N] of the hidden states [N, E] that predict `targets` [N]; differentiable once."""
    return _TokenScores.apply(hidden, targets, head)


def position_kl(hidden: Tensor, reference: Tensor, head: nn.Linear, direction: str) -> Tensor:
    """KL [N] between the policy's and the reference's hidden states [N, E]; differentiable once, in `hidden`.

    `direction` is one of `losses.KL_DIRECTIONS`.
    """
    return _PositionKL.apply(hidden, reference, head, direction)


def _chunks(rows: int, head: nn.Linear) -> list[slice]:
    size = max(1, CHUNK // head.weight.shape[0])
    return [slice(start, start + size) for start in range(0, rows, size)]


def _log_probs(hidden: Tensor, head: nn.Linear) -> Tensor:
    return log_probs(functional.linear(hidden.to(head.weight.dtype), head.weight, head.bias))


def _to_hidden(gradient: Tensor, head: nn.Linear) -> Tensor:
    """From the derivative with respect to logits to that with respect to hidden states."""
    return gradient.to(head.weight.dtype) @ head.weight


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, targets, head):
        scores = hidden.new_empty(len(hidden), dtype=torch.promote_types(head.weight.dtype, torch.float32))
        derivative = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows in _chunks(len(hidden), head):
            policy, target = _log_probs(hidden[rows], head), targets[rows, None]
            scores[rows] = policy.gather(1, target)[:, 0]
            if derivative is not None:
                gradient = policy.exp_().neg_()
                gradient.scatter_add_(1, target, torch.ones_like(target, dtype=gradient.dtype))
                derivative[rows] = _to_hidden(gradient, head).to(hidden.dtype)
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
        divergence = hidden.new_empty(len(hidden), dtype=torch.promote_types(head.weight.dtype, torch.float32))
        derivative = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows in _chunks(len(hidden), head):
            log_p, log_q = _log_probs(hidden[rows], head), _log_probs(reference[rows], head)
            if direction == "policy_reference":
                difference = log_q.neg_().add_(log_p)
                p = log_p.exp_()
                kl = (p * difference).sum(-1)
                gradient = difference.sub_(kl[:, None]).mul_(p)
            else:
                q = log_q.exp()
                kl = (q * log_q.sub_(log_p)).sum(-1)
                gradient = log_p.exp_().sub_(q)
            divergence[rows] = kl
            if derivative is not None:
                derivative[rows] = _to_hidden(gradient, head).to(hidden.dtype)
        ctx.save_for_backward(derivative)
        return divergence

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (derivative,) = ctx.saved_tensors
        return (gradient[:, None] * derivative).to(derivative.dtype), None, None, None
