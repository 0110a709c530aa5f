"""A faster matrix product for small batches on a CPU.

Decoding multiplies a handful of rows by every weight at every token. torch's CPU libraries are slow at that shape:
y = x·Wᵀ with 2 rows takes far longer than the same product written as (W·xᵀ)ᵀ, which reads the weight in its own order,
and one row alone takes longer than two. The sums are the same, rounded in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MAX_ROWS = 32  # from about there on both ways are equally fast


class SmallBatchSwitch:
    """Tells the `SmallBatchLinear` layers of one model whether the pass that runs is a small batch."""

    on = False

    @contextmanager
    def set_for(self, tokens: int, device: torch.device) -> Iterator[None]:
        """Turn it on, within the context, for a pass of at most `MAX_ROWS` tokens on a CPU without gradients."""
        before, self.on = self.on, device.type == "cpu" and tokens <= MAX_ROWS and not torch.is_grad_enabled()
        try:
            yield
        finally:
            self.on = before


class SmallBatchLinear(nn.Linear):
    """The linear layer `linear`, sharing its weight and bias, that multiplies small batches the other way round."""

    def __init__(self, linear: nn.Linear, switch: SmallBatchSwitch) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias, self.switch = linear.weight, linear.bias, switch
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // self.in_features
        if not (self.switch.on and 0 < rows <= MAX_ROWS and input.dtype == self.weight.dtype == torch.float32):
            return super().forward(input)
        flat = input.reshape(rows, self.in_features)
        columns = (flat if rows > 1 else flat.repeat(2, 1)).t()
        output = torch.mm(self.weight, columns)[:, :rows].t()
        output = output.contiguous() if self.bias is None else output + self.bias
        return output.reshape(*input.shape[:-1], self.out_features)


def use_small_batch_linear(model: nn.Module) -> SmallBatchSwitch:
    """Replace the linear layers of `model` by `SmallBatchLinear` layers, and return the switch of all of them.

    A model that has such layers already, such as the copy of a model, keeps their switch. Layers of another class, and
    weights that a package keeps in few bits (a tensor class of its own), stay as they are.
    """
    found = (module.switch for module in model.modules() if isinstance(module, SmallBatchLinear))
    switch = next(found, None) or SmallBatchSwitch()
    replaced: dict[nn.Linear, SmallBatchLinear] = {}  # a layer may stand in several places
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if type(layer) is nn.Linear and type(layer.weight) is nn.Parameter:
            model.set_submodule(name, replaced.setdefault(layer, SmallBatchLinear(layer, switch)))
    return switch
