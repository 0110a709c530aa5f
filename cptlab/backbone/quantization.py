"""Quantized linear layers for a frozen model: weights of 8 or 4 bits, through which gradients flow to a prefix.

bitsandbytes or torchao rounds the weights while transformers loads them. The products are our own, for three reasons:
- bitsandbytes' 8-bit product (LLM.int8, arXiv 2208.07339) rounds activations, too, in a way that depends on the other
  rows of the batch, and stores them where gradient checkpointing cannot free them;
- its 4-bit layer packs its weight again on some CPUs when it runs without gradients, and gives none from then on;
- torchao's layers store a float copy of every weight for the backward pass.
Here floats are made for one product at a time, forward and backward, as in QLoRA (arXiv 2305.14314). That costs time,
above all in decoding, which reads the whole weight for a few rows.

Embeddings, norms and the output head are not quantized.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from transformers import BitsAndBytesConfig, PreTrainedModel, TorchAoConfig
from transformers.utils.import_utils import is_bitsandbytes_available, is_torchao_available

from cptlab.backbone.gradient_checkpointing import decoder_layers
from cptlab.errors import UserError

QUANTIZATIONS = ("8bit", "4bit")
GROUP = 32  # weights that share a scale in torchao's 4 bits
REMEDY = "Set backbone.quantization=null, or use another backbone."


def quantized_loading(kind: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the options of `from_pretrained` that round weights to `kind` on `device`. UserError if that is impossible."""
    if kind not in QUANTIZATIONS:
        raise UserError(
            f"There is no quantization {kind!r}. Set backbone.quantization to {', '.join(QUANTIZATIONS)} or null."
        )
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"No quantization runs on {device}. Set backbone.quantization=null, or backbone.device to cuda or cpu."
        )
    if not find_spec("accelerate") or not (is_bitsandbytes_available() or is_torchao_available()):
        raise UserError(
            f"backbone.quantization={kind} needs accelerate and either bitsandbytes or torchao. "
            "Install them with `pip install 'cptlab[quantization]'`, or set backbone.quantization=null."
        )
    if is_bitsandbytes_available():
        config: Any = BitsAndBytesConfig(
            load_in_8bit=kind == "8bit",
            load_in_4bit=kind == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
        )
    else:
        from torchao.quantization import (  # pyright: ignore[reportMissingImports]
            Int8WeightOnlyConfig,
            IntxWeightOnlyConfig,
            PerGroup,
        )

        config = TorchAoConfig(
            Int8WeightOnlyConfig(set_inductor_config=False)
            if kind == "8bit"
            else IntxWeightOnlyConfig(weight_dtype=getattr(torch, "int4"), granularity=PerGroup(GROUP))  # noqa: B009
        )
    return {"quantization_config": config, "device_map": {"": str(device)}}


class QuantizedLinear(nn.Module):
    """A frozen linear layer with weights of 8 or 4 `bits`, and a scale for each group of weights.

    `numbers` is int8 [O, I] for 8 bits. For 4 bits a byte holds two weights, in the order of the package that made it.
    """

    numbers: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, numbers: Tensor, scales: Tensor, bias: Tensor | None, shape: tuple[int, int], bits: int) -> None:
        super().__init__()
        self.out_features, self.in_features, self.bits = *shape, bits
        self.register_buffer("numbers", numbers.detach())
        self.register_buffer("scales", scales.detach().float())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def floats(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [O, I] in `dtype`."""
        numbers = self.numbers
        if self.bits == 4:  # the first of two is in the low half
            numbers = torch.stack([numbers & 15, numbers >> 4], dim=-1).flatten(-2).to(torch.int8) - 8
        groups = numbers.view(self.out_features, self.scales.shape[1], -1)
        return (groups * self.scales[..., None]).to(dtype).view(self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        return _Product.apply(input, self)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


class NormalFloatLinear(QuantizedLinear):
    """A linear layer in bitsandbytes' NF4. `scales` [blocks, 1] belong to blocks of `block` weights, row by row."""

    block: int

    def floats(self, dtype: torch.dtype) -> Tensor:
        from bitsandbytes.functional import (  # pyright: ignore[reportMissingImports]
            QuantState,
            dequantize_4bit,
        )

        shape = torch.Size([self.out_features, self.in_features])
        state = QuantState(self.scales[:, 0], shape, blocksize=self.block, quant_type="nf4", dtype=dtype)
        return dequantize_4bit(self.numbers, state)


class _Product(torch.autograd.Function):
    """x·Wᵀ + b, which stores nothing but the layer for the backward pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return linear(input, layer.floats(input.dtype), layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient @ ctx.layer.floats(gradient.dtype), None


def use_own_products(model: PreTrainedModel) -> None:
    """Replace every layer that a package has rounded by a `QuantizedLinear`.

    Raises UserError if most weights were not rounded, or if the model was quantized before it was saved.
    """
    quantizer: Any = model.hf_quantizer
    if quantizer.pre_quantized:  # perhaps in a way that is not one of ours
        raise UserError("This model was quantized before it was saved. Set backbone.quantization=null.")
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and (own := _own(module)):
            model.set_submodule(name, own)
    layers = decoder_layers(model)
    rounded = sum(m.in_features * m.out_features for m in layers.modules() if isinstance(m, QuantizedLinear))
    left = sum(parameter.numel() for parameter in layers.parameters())
    if rounded < left:
        raise UserError(
            f"Only {rounded / (rounded + left):.0%} of the layers' weights of this {model.config.model_type} model can be "
            f"quantized. {REMEDY}"
        )
    head: Any = model.get_output_embeddings()
    assert head.weight.is_floating_point()
    quantizer.remove_quantization_config(model)  # transformers need not know of the package any more


def _own(module: nn.Linear) -> QuantizedLinear | None:
    """Return the layer that replaces a package's layer, or None for a layer that was not rounded."""
    weight: Any = module.weight
    bias, shape = module.bias, (module.out_features, module.in_features)
    kind = type(weight).__name__  # by name, because neither package need be installed
    if kind == "Int8Params":
        return QuantizedLinear(weight.data, weight.SCB[:, None] / 127, bias, shape, bits=8)
    if kind == "Params4bit":
        state = weight.quant_state
        own = NormalFloatLinear(weight.data, state.absmax[:, None], bias, shape, bits=4)
        own.block = state.blocksize
        return own
    if kind == "Int8Tensor":
        assert not weight.zero_point.any()
        return QuantizedLinear(weight.qdata, weight.scale, bias, shape, bits=8)
    if kind == "IntxUnpackedToInt8Tensor":
        assert not weight.zero_point.any()
        halves = (weight.qdata + 8).to(torch.uint8)
        return QuantizedLinear(halves[:, ::2] | halves[:, 1::2] << 4, weight.scale, bias, shape, bits=4)
    return None
