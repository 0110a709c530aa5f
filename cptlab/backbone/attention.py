"""Masks, positions and the decoding cache, so that a prefix stays visible to every token.

Transformers builds its own masks by cache index, which lets a prefix scroll out of a sliding window, and its sliding
cache layers drop the prefix's keys. Here every layer keeps all its keys, and the mask says who sees whom:
a token sees the whole prefix, and the real tokens not after it and less than `window` positions before it.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, DynamicLayer

GROWTH = 64  # positions added when a decoding buffer is full


def token_positions(attention_mask: torch.Tensor, start: int) -> torch.Tensor:
    """Positions [B, T] of the tokens of a padded batch: the first real token of each row is at `start`."""
    return attention_mask.long().cumsum(-1).sub(1).clamp(min=0) + start


def additive_mask(
    query_positions: torch.Tensor,
    key_positions: torch.Tensor,
    key_real: torch.Tensor,
    prefix_length: int,
    window: int | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """0 where a query may look, the most negative number of `dtype` elsewhere: [B, 1, Q, K].

    `query_positions` [B, Q] and `key_positions` [B, K] are positions in the model's sense; the first `prefix_length`
    keys are the prefix; `key_real` [B, K] is False on padding.
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
        visible[:, :, :prefix_length] = True
    visible &= key_real[:, None, :]
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


class BufferedLayer(DynamicLayer):
    """A cache layer that appends in place, for decoding without gradients.

    The first `update` is kept as it is; later ones write into a buffer that grows by `GROWTH` positions, where
    transformers' own layer copies everything at every token.
    """

    length = 0

    def update(self, key_states, value_states, *args, **kwargs):
        end = self.length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = (key_states, value_states)
        else:
            if end > self.buffers[0].shape[-2]:
                self.buffers = tuple(self._grown(buffer, end + GROWTH) for buffer in self.buffers)
            for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[:, :, self.length : end] = new
        self.length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def _grown(self, buffer: torch.Tensor, capacity: int) -> torch.Tensor:
        batch, heads, _, dim = buffer.shape
        grown = buffer.new_empty(batch, heads, capacity, dim)
        grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown

    def rows(self, change) -> None:
        """Replace every tensor by `change(tensor)`, which picks or repeats rows."""
        self.buffers = (change(self.keys), change(self.values))
        self.keys, self.values = self.buffers


class BufferedCache(Cache):
    """A cache of `BufferedLayer`s, made as the model asks for them."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=BufferedLayer)
