"""Attention masks and positions that keep a prefix visible to every token.

Transformers builds its own masks by cache index, which lets a prefix scroll out of a sliding window. Here the mask says
which query sees which key: a token sees the whole prefix, and the real tokens not after it and less than `window`
positions before it.
"""

from __future__ import annotations

import torch

from cptlab.backbone.decode_state import PREFIX_POSITION


def token_positions(attention_mask: torch.Tensor, start: int) -> torch.Tensor:
    """Return the positions [B, T] of the tokens of a padded batch. The first real token of each row is at `start`."""
    return attention_mask.long().cumsum(-1).sub(1).clamp(min=0) + start


def additive_mask(
    query_positions: torch.Tensor,
    key_positions: torch.Tensor,
    key_real: torch.Tensor,
    window: int | None,
    dtype: torch.dtype,
    segments: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the mask [B, 1, Q, K]: 0 where a query sees a key, and the most negative number of `dtype` elsewhere.

    `query_positions` [B, Q] and `key_positions` [B, K] are the positions that the model uses, negative for the keys of
    a prefix. `key_real` [B, K] is False on padding. `segments` holds the segment of each query [B, Q] and of each key
    [B, K]: every query sees segment 0, and any other segment is a branch that only its own queries see.
    """
    queries, keys = query_positions[:, :, None], key_positions[:, None, :]
    visible = queries >= keys  # comparisons only: a difference would take eight bytes a pair
    if window is not None:
        visible &= (keys > queries - window) | (keys < 0)
    visible &= key_real[:, None, :]
    if segments is not None:
        of_query, of_key = segments[0][:, :, None], segments[1][:, None, :]
        visible &= (of_query == of_key) | (of_key == 0)
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def with_prefix_keys(real: torch.Tensor, positions: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Put `length` prefix keys before the tokens: return which keys are real and their positions, both [B, length + T]."""
    pad = torch.nn.functional.pad
    return pad(real, (length, 0), value=True), pad(positions, (length, 0), value=PREFIX_POSITION)
