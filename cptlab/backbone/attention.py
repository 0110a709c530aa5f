"""Masks, positions and the decoding cache, so that a prefix stays visible to every token.

Transformers builds its own masks by cache index, which lets a prefix scroll out of a sliding window, and its sliding
cache layers drop the prefix's keys. Here every layer keeps all its keys, and the mask says who sees whom:
a token sees the whole prefix, and the real tokens not after it and less than `window` positions before it.
"""

from __future__ import annotations

from collections.abc import Callable

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
    window: int | None,
    dtype: torch.dtype,
    segments: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """0 where a query may look, the most negative number of `dtype` elsewhere: [B, 1, Q, K].

    `query_positions` [B, Q] and `key_positions` [B, K] are positions in the model's sense; those of
    a prefix's keys are negative; `key_real` [B, K] is False on padding. `segments` are those of the queries [B, Q] and
    of the keys [B, K]: 0 is shared by all, another number is a branch that is seen from itself alone.
    """
    queries, keys = query_positions[:, :, None], key_positions[:, None, :]
    visible = queries >= keys  # comparisons alone: a difference would take eight bytes a pair
    if window is not None:
        visible &= (keys > queries - window) | (keys < 0)
    visible &= key_real[:, None, :]
    if segments is not None:
        of_query, of_key = segments[0][:, :, None], segments[1][:, None, :]
        visible &= (of_query == of_key) | (of_key == 0)
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


class PrefixLayer(DynamicLayer):
    """A cache layer that puts a prefix before the keys and values of one pass and keeps nothing of them.

    So a layer may run twice in training, as it does when its activations are recomputed.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states, value_states, *args, **kwargs):
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


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

    def set(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.buffers = self.keys, self.values = keys, values
        self.length = keys.shape[2]

    def _grown(self, buffer: torch.Tensor, capacity: int) -> torch.Tensor:
        batch, heads, _, dim = buffer.shape
        grown = buffer.new_empty(batch, heads, capacity, dim)
        grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown


class BufferedCache(Cache):
    """A cache of `BufferedLayer`s, made as the model asks for them, whose rows can be changed."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=BufferedLayer)

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor], drop: bool) -> BufferedCache:
        """Another cache of `change(tensor)` of all keys and values [B, H, K, D]; with `drop`, this one is emptied."""
        other = BufferedCache()
        for index, layer in enumerate(self.layers):
            tensors = change(layer.keys), change(layer.values)
            if drop:
                layer.buffers = layer.keys = layer.values = None
            other.update(*tensors, index)
        return other

    def widen(self, columns: int) -> None:
        """Put `columns` empty columns before all others."""
        for layer in self.layers:
            layer.set(*(_widened(tensor, columns) for tensor in (layer.keys, layer.values)))

    def append(self, other: BufferedCache, width: int) -> None:
        """Let the rows of `other` follow, both made `width` columns wide."""
        for layer, theirs in zip(self.layers, other.layers, strict=True):
            pairs = ((layer.keys, theirs.keys), (layer.values, theirs.values))
            layer.set(*(torch.cat([_widened(tensor, width - tensor.shape[2]) for tensor in pair]) for pair in pairs))

    def replace(self, rows: torch.Tensor, other: BufferedCache) -> None:
        """Put the rows of `other`, which has no more columns, in the place of `rows`, at the end of the columns."""
        for layer, theirs in zip(self.layers, other.layers, strict=True):
            start = layer.length - theirs.length
            layer.keys[rows, :, start:] = theirs.keys
            layer.values[rows, :, start:] = theirs.values


def _widened(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    if not columns:
        return tensor
    batch, heads, length, dim = tensor.shape
    wide = tensor.new_zeros(batch, heads, length + columns, dim)
    wide[:, :, columns:] = tensor
    return wide
