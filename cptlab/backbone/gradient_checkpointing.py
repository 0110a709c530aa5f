"""Gradient checkpointing with a prefix present: each decoder layer runs again in the backward pass.

Chen et al., Training deep nets with sublinear memory cost (arXiv 1604.06174). Kept are only the inputs of the layers, so memory
for activations is about one layer's instead of all layers', for one more forward pass through the layers.

transformers' own checkpointing needs a model in train mode and takes its cache away, prefix included; PEFT refuses both
together. Here the cache stays. As a layer reads it twice, it must be a stateless one (`cptlab.backbone.kv_cache.PrefixLayer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from cptlab.errors import UserError


class _Recomputed:
    """A layer's `forward` that keeps its inputs alone where gradients are wanted."""

    def __init__(self, forward: Callable[..., Any], draws: bool) -> None:
        self.forward, self.draws = forward, draws

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        # Not the reentrant kind: it would see no gradient where only the cache, no argument, asks for one, as in the
        # first layer.
        return checkpoint(self.forward, *args, use_reentrant=False, preserve_rng_state=self.draws, **kwargs)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's list of decoder layers: the outermost list of `num_hidden_layers` modules. UserError without one."""
    count = model.config.num_hidden_layers
    lists = [
        (name.count("."), module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise UserError(
            f"A {model.config.model_type} model has no list of {count} layers that could be computed again. "
            "Set compute.checkpointing=false."
        )
    return min(lists, key=lambda item: item[0])[1]  # of experts there may be as many, further inside


@contextmanager
def checkpointed(model: PreTrainedModel) -> Iterator[None]:
    """Within it, each decoder layer of a `model` in eval mode is computed again in the backward pass.

    Modules of a layer that are in train mode (an adapter's dropout) draw the same numbers the second time.

    The backward pass itself may come later. Without gradients nothing changes, and inside another `checkpointed` of the same
    model neither. Gradients are those without it, bit for bit where the kernels repeat themselves.
    """
    assert not model.training, "a layer with dropout would be another one the second time"
    # a forward of its own, where a library has given the layer one, comes back afterwards
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
