"""A faster product for a few rows on a CPU.

Decoding multiplies a handful of rows by every weight at every token. torch's CPU libraries are slow at that shape: y = x·Wᵀ with
2 rows takes far longer than the same product written as (W·xᵀ)ᵀ, which reads the weight in its own order, and one row alone
longer than two. Same sums, rounded in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MOST_ROWS = 32  # from about there on both ways are equally fast
_active = False


class FewRowsLinear(nn.Linear):
    """An `nn.Linear` that multiplies few rows the other way round, within `few_rows`."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // self.in_features
        if not (_active and 0 < rows <= MOST_ROWS and input.dtype == self.weight.dtype == torch.float32):
            return super().forward(input)
        flat = input.reshape(rows, self.in_features)
        columns = (flat if rows > 1 else flat.repeat(2, 1)).t()
        output = torch.mm(self.weight, columns)[:, :rows].t()
        output = output.contiguous() if self.bias is None else output + self.bias
        return output.reshape(*input.shape[:-1], self.out_features)


def use_few_rows(model: nn.Module) -> None:
    """Let a frozen model's linear layers do so. Nothing changes outside of `few_rows`.

    Weights that a package keeps in few bits, a tensor class of its own, stay with its product.
    """
    for module in model.modules():
        if type(module) is nn.Linear and type(module.weight) is nn.Parameter:
            module.__class__ = FewRowsLinear


@contextmanager
def few_rows(rows: int, device: torch.device) -> Iterator[None]:
    """Within it, such a model is faster on a CPU; for inference with at most `MOST_ROWS` rows of one token."""
    global _active
    before, _active = _active, device.type == "cpu" and rows <= MOST_ROWS and not torch.is_grad_enabled()
    try:
        yield
    finally:
        _active = before
