"""Gradient checkpointing with a prefix: each decoder layer runs again in the backward pass.

Chen et al., Training deep nets with sublinear memory cost (arXiv 1604.06174). Only the inputs of the layers are stored.
So activations take about the memory of one layer instead of all layers, at the cost of one more forward pass.

transformers' own checkpointing needs a model in train mode and removes its cache, and with it the prefix. PEFT refuses
the two together. Here the cache stays. A layer reads it twice, so it must be stateless, as `kv_cache.PrefixLayer` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from cptlab.backbone.prefix_shape import text_config
from cptlab.errors import UserError


class _Recomputed:
    """The `forward` of a layer that stores only its inputs when gradients are computed."""

    def __init__(self, forward: Callable[..., Any], draws: bool) -> None:
        self.forward, self.draws = forward, draws

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        # The reentrant kind would see no gradient if only the cache asks for one and no argument, as in the first
        # layer.
        return checkpoint(self.forward, *args, use_reentrant=False, preserve_rng_state=self.draws, **kwargs)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the model's list of decoder layers: the outermost list of `num_hidden_layers` modules.

    Raises UserError if there is none.
    """
    count = text_config(model.config).num_hidden_layers
    lists = [
        (name.count("."), module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise UserError(
            f"A {model.config.model_type} model has no list of {count} layers that can be computed again. "
            "Set compute.checkpointing=false."
        )
    return min(lists, key=lambda item: item[0])[1]  # there may be as many experts, further inside


@contextmanager
def checkpointed(model: PreTrainedModel) -> Iterator[None]:
    """Compute each decoder layer of a `model` in eval mode again in the backward pass of this context.

    Modules of a layer that are in train mode (an adapter's dropout) draw the same numbers the second time.

    The backward pass may run after the context. Nothing changes without gradients, or inside another `checkpointed` of
    the same model. Gradients are the same as without it, bit for bit if the kernels are deterministic.
    """
    assert not model.training, "a layer with dropout would be another one the second time"
    # a library may have given a layer a forward of its own, which is put back afterwards
    before = [
        (layer, layer.__dict__.get("forward"))
        for layer in decoder_layers(model)
        if not isinstance(layer.forward, _Recomputed)
    ]
    for layer, _ in before:
        layer.forward = _Recomputed(layer.forward, any(module.training for module in layer.modules()))
    try:
        yield
    finally:
        for layer, own in before:
            if own is None:
                del layer.forward
            else:
                layer.forward = own
