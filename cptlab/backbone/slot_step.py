"""One decoding step of a model on slots (slot_cache.py): the same operators at the same addresses at every step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from cptlab.backbone.model import Backbone
from cptlab.backbone.own_attention import asks_for_more, attending
from cptlab.backbone.slot_cache import SlotCache

ATTENTION = "cptlab_one_token"


def one_token_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of one token per row, as transformers calls it: `query` [R, H, 1, D], keys and values [R, G, W, D].

    The heads that share keys are queries of one head, so no keys are copied. Returns [R, 1, H, D].
    """
    if asks_for_more(options):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    rows, heads, _, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    found = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return found.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(ATTENTION, one_token_attention)


def slot_attention(backbone: Backbone) -> AbstractContextManager[None]:
    """Within it, the layers of a model that attends with SDPA use `one_token_attention`."""
    sdpa = backbone.config._attn_implementation == "sdpa"
    return attending(backbone.model, ATTENTION) if sdpa else nullcontext()


def slot_logits(backbone: Backbone, tokens: Tensor, cache: SlotCache) -> Tensor:
    """Read `tokens` [R] at the positions of `cache`, and return the logits [R, V] of the next ones.

    Writes into the cache and leaves its positions. Must be run within `slot_attention`, and without gradients.
    """
    positions, keys = cache.positions[:, None], cache.key_positions()
    mask = backbone.masks(positions, keys, torch.ones_like(keys, dtype=torch.bool))
    output = backbone.model(
        input_ids=tokens[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache,
        use_cache=True,
    )  # fmt: skip
    return output.logits[:, -1]
