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

from cptlab.training.objectives.losses import log_probs

CHUNK = 1 << 23  # logits at a time
CACHED = 1 << 18  # logits that go through all passes of a softmax before the next do: a CPU's cache holds them
OFF_CPU = 4  # times as many logits elsewhere, where a product of few rows does not pay


def token_scores(hidden: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
    """log P(targets) [N] of the hidden states [N, E] that predict `targets` [N]; differentiable once."""

    def scores(rows: slice, logits: Tensor, wanted: bool) -> Tensor:
        found = []
        for block in _blocks(logits):
            policy, target = log_probs(logits[block]), targets[rows][block, None]
            found.append(policy.gather(1, target)[:, 0])
            if wanted:
                gradient = policy.exp_().neg_()
                gradient.scatter_add_(1, target, torch.ones_like(target, dtype=gradient.dtype))
                logits[block] = gradient
        return torch.cat(found)

    return _NumberPerRow.apply(hidden, head, scores)


def position_kl(hidden: Tensor, reference: Tensor, head: nn.Linear, direction: str) -> Tensor:
    """KL [N] between the policy's and the reference's hidden states [N, E]; differentiable once, in `hidden`.

    `direction` is one of `losses.KL_DIRECTIONS`.
    """

    def divergences(rows: slice, logits: Tensor, wanted: bool) -> Tensor:
        found, others = [], _logits(reference[rows], head)
        for block in _blocks(logits):
            log_p, log_q = log_probs(logits[block]), log_probs(others[block])
            if direction == "policy_reference":
                difference = log_q.neg_().add_(log_p)
                p = log_p.exp_()
                found.append((p * difference).sum(-1))
                if wanted:
                    logits[block] = difference.sub_(found[-1][:, None]).mul_(p)
            else:
                q = log_q.exp()
                found.append((q * log_q.sub_(log_p)).sum(-1))
                if wanted:
                    logits[block] = log_p.exp_().sub_(q)
        return torch.cat(found)

    return _NumberPerRow.apply(hidden, head, divergences)


def _pieces(rows: int, numbers: int, vocabulary: int) -> list[slice]:
    """Return slices of `rows` rows, each of about `numbers` numbers, or of one row."""
    size = max(1, numbers // vocabulary)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _chunks(hidden: Tensor, head: nn.Linear) -> list[slice]:
    numbers = CHUNK if hidden.device.type == "cpu" else OFF_CPU * CHUNK
    return _pieces(len(hidden), numbers, head.weight.shape[0])


def _blocks(logits: Tensor) -> list[slice]:
    return _pieces(len(logits), CACHED if logits.device.type == "cpu" else CHUNK, logits.shape[1])


def _logits(hidden: Tensor, head: nn.Linear) -> Tensor:
    return functional.linear(hidden.to(head.weight.dtype), head.weight, head.bias)


class _NumberPerRow(torch.autograd.Function):
    """[N] of hidden states [N, E], a chunk of rows at a time.

    `number(rows, logits, wanted)` gives those of a chunk; where they are `wanted`, it puts the derivatives with respect to
    the logits in the place of the logits, none of which is needed twice.
    """

    @staticmethod
    def forward(ctx, hidden, head, number):
        values = hidden.new_empty(len(hidden), dtype=torch.promote_types(head.weight.dtype, torch.float32))
        derivative = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows in _chunks(hidden, head):
            logits = _logits(hidden[rows], head)
            values[rows] = number(rows, logits, derivative is not None)
            if derivative is not None:
                derivative[rows] = (logits @ head.weight).to(hidden.dtype)
            del logits  # before the next chunk's are made
        ctx.save_for_backward(derivative)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):  # pyright: ignore[reportIncompatibleMethodOverride]  # hidden by the decorator
        (derivative,), (gradient,) = ctx.saved_tensors, gradients
        return (gradient[:, None] * derivative).to(derivative.dtype), None, None
