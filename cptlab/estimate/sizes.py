"""Numbers and bytes that a backbone's config alone decides: nothing is loaded, nothing is run."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from cptlab.backbone import Backbone
from cptlab.backbone.gradient_checkpointing import decoder_layers
from cptlab.backbone.quantization import QuantizedLinear
from cptlab.errors import UserError

BITS = {"8bit": 8, "4bit": 4}


def empty_backbone(config: PreTrainedConfig, dtype: torch.dtype) -> Backbone:
    """Return the backbone of a config on the meta device: tensors have shapes and no data. Its tokenizer knows no text.

    Raises UserError for a config that is no causal language model's, and for one that no prefix fits.
    """
    vocabulary = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, eos_token="<unk>")
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        except ValueError as error:
            raise UserError(
                f"transformers makes no causal language model of a {config.model_type} config "
                f"({str(error).splitlines()[0]}). Use another backbone."
            ) from error
    return Backbone(model, tokenizer, config.model_type)


def parameter_count(model: nn.Module) -> int:
    """Count a model's parameters; of a quantized layer those that it had before."""
    quantized = (m.in_features * m.out_features for m in model.modules() if isinstance(m, QuantizedLinear))
    return sum(parameter.numel() for parameter in model.parameters()) + sum(quantized)


def weight_bytes(model: PreTrainedModel, quantization: str | None = None) -> int:
    """Return the bytes of a model's parameters and buffers.

    With `quantization`, those that they would take if the linear layers of its decoder were rounded, scales left out.
    """
    total = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    if quantization is None:
        return total
    linear = [m.weight for m in decoder_layers(model).modules() if isinstance(m, nn.Linear)]
    return total - sum(weight.nbytes - weight.numel() * BITS[quantization] // 8 for weight in linear)


def held_weight_bytes(model: PreTrainedModel, processes: int) -> int:
    """Return the bytes of the weights that each of `processes` holds that share out the decoder layers: its share, all that
    is not in layers, and two whole layers, one that runs and one that is fetched ahead."""
    layers = decoder_layers(model)
    each = [sum(parameter.nbytes for parameter in layer.parameters()) for layer in layers]
    return weight_bytes(model) - sum(each) + -(-sum(each) // processes) + 2 * max(each)
