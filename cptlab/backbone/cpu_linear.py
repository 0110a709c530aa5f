"""Faster matrix products for decoding on a CPU.

Decoding multiplies tens of rows by every weight at every token, and torch's default library for float32 (MKL) is slow at
that shape. Large weights are multiplied by oneDNN, which torch brings along as well. Small ones stay in a processor's
cache, where the call itself counts: y = x·Wᵀ with 2 rows takes far longer than the same product written as (W·xᵀ)ᵀ, which
reads the weight in its own order, and one row alone takes longer than two. The sums are the same, rounded in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LARGE = 1 << 18  # weights with more numbers than this, 1 MB, are large
MAX_ROWS = 32  # from about there on both ways of writing a small product are equally fast

_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


class CpuLinearSwitch:
    """Tells the `CpuLinear` layers of one model how many tokens the pass that runs reads: 0 where they multiply plainly."""

    tokens = 0

    @contextmanager
    def set_for(self, tokens: int, device: torch.device) -> Iterator[None]:
        """Turn it on, within the context, for a pass of so many tokens, on a CPU and without gradients."""
        before, self.tokens = self.tokens, tokens if device.type == "cpu" and not torch.is_grad_enabled() else 0
        try:
            yield
        finally:
            self.tokens = before


class CpuLinear(nn.Linear):
    """The linear layer `linear`, sharing its weight and bias, with the faster products where the switch allows them."""

    def __init__(self, linear: nn.Linear, switch: CpuLinearSwitch) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias, self.switch = linear.weight, linear.bias, switch
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // self.in_features
        shape = *input.shape[:-1], self.out_features
        fast = self.switch.tokens and rows and input.dtype == self.weight.dtype == torch.float32
        if fast and self.weight.numel() > LARGE:
            if _onednn is not None and not torch.is_autocast_enabled("cpu"):
                return _onednn(input.reshape(rows, -1), self.weight, self.bias, "none", [], "").reshape(shape)
        elif fast and max(rows, self.switch.tokens) <= MAX_ROWS:
            flat = input.reshape(rows, -1)
            columns = (flat if rows > 1 else flat.repeat(2, 1)).t()
            output = torch.mm(self.weight, columns)[:, :rows].t()
            output = output.contiguous() if self.bias is None else output + self.bias
            return output.reshape(shape)
        return super().forward(input)


def use_cpu_linear(model: nn.Module) -> CpuLinearSwitch:
    """Replace the linear layers of `model` by `CpuLinear` layers, and return the switch of all of them.

    A model that has such layers already, such as the copy of a model, keeps their switch. Layers of another class, and
    weights that a package keeps in few bits (a tensor class of its own), stay as they are.
    """
    found = (module.switch for module in model.modules() if isinstance(module, CpuLinear))
    switch = next(found, None) or CpuLinearSwitch()
    replaced: dict[nn.Linear, CpuLinear] = {}  # a layer may stand in several places
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if type(layer) is nn.Linear and type(layer.weight) is nn.Parameter:
            model.set_submodule(name, replaced.setdefault(layer, CpuLinear(layer, switch)))
    return switch
