"""A bias on attention scores: for chosen keys of each row, in all heads or in some of some layers.

Adding log α to the score of a key multiplies its weight before normalisation by α. As the softmax normalises afterwards,
the result is exactly that of scaling the attention weights by α and dividing by their new sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cptlab.errors import UserError


@dataclass(frozen=True)
class AttentionBias:
    """`by_position` [B, P] is added to the scores of the keys at positions 0 to P − 1 of each row, whatever the query.

    A prefix stands at no position of its own and gets nothing, nor do keys at later positions. `heads` names the query
    heads of each layer that are biased, from 0; None: all heads of all layers.
    """

    by_position: Tensor
    heads: Mapping[int, tuple[int, ...]] | None = None

    def of_keys(self, positions: Tensor) -> Tensor:
        """Return [B, K], what is added for keys at these positions [B, K] of the model."""
        beyond = self.by_position.shape[1]
        index = positions.masked_fill((positions < 0) | (positions >= beyond), beyond)
        return nn.functional.pad(self.by_position, (0, 1)).gather(1, index)


@contextmanager
def biased(model: nn.Module, name: str, num_heads: int, options: dict[str, Any],
           bias: AttentionBias | None, positions: Tensor) -> Iterator[None]:  # fmt: skip
    """Bias the attention of the forward pass in this context, whose arguments `options` hold the mask. None: nothing.

    `positions` [B, K] are those of the keys. With chosen heads, each of their layers is given a mask of its own. Raises
    UserError for a model `name` that hands its layers no mask of ours.
    """
    if bias is None:
        yield
        return
    by_key = bias.of_keys(positions)[:, None, None, :] * _divided_by(model)

    def added(mask: Tensor, by_head: Tensor | None = None) -> Tensor:
        extra = by_key if by_head is None else by_key * by_head[None, :, None, None]
        return (mask + extra.to(mask.dtype)).clamp_(min=torch.finfo(mask.dtype).min)

    masks = options["attention_mask"]
    if bias.heads is None:
        biased_masks = {kind: added(mask) for kind, mask in masks.items()} if isinstance(masks, dict) else added(masks)
        options["attention_mask"] = biased_masks
        yield
        return
    ours = list(masks.values()) if isinstance(masks, dict) else [masks]
    reached: set[int] = set()

    def hook_of(layer: int, by_head: Tensor) -> Callable:
        def exchange(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            def other(value: Any) -> Any:
                if any(value is mask for mask in ours):
                    reached.add(layer)
                    return added(value, by_head)
                return value

            return tuple(map(other, args)), {key: other(value) for key, value in kwargs.items()}

        return exchange

    hooks = []
    for layer, heads in bias.heads.items():
        by_head = by_key.new_zeros(num_heads)
        by_head[list(heads)] = 1
        hooks += [
            module.register_forward_pre_hook(hook_of(layer, by_head), with_kwargs=True)
            for module in model.modules()
            if getattr(module, "layer_idx", None) == layer
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if missing := sorted(set(bias.heads) - reached):
        raise UserError(
            f"Single heads of {name} cannot be steered: its layer {missing[0]} is handed no attention mask. Steer all "
            "heads (decoding.steering.heads=null), or use a backbone of another architecture."
        )


def _divided_by(model: nn.Module) -> float:
    """Return what the model divides the scores by after it has added the mask: 1, except in CodeGen."""
    config: Any = model.config
    return math.sqrt(config.n_embd // config.n_head) if config.model_type == "codegen" else 1.0
