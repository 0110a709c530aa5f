"""Key/value caches: one that puts a prefix before a single pass, and one that grows in place while decoding.

The sliding cache layers of transformers drop the keys of a prefix. Here every layer keeps all its keys, and the mask
(attention_mask.py) decides which of them a token sees.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers.cache_utils import Cache, DynamicLayer

GROWTH = 64  # positions added when a decoding buffer is full


class PrefixLayer(DynamicLayer):
    """A cache layer that puts a prefix before the keys and values of one pass and does not store them.

    So a layer may run twice in training, as it does when its activations are recomputed.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states, value_states, *args, **kwargs):
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class BufferedLayer(DynamicLayer):
    """A cache layer that appends in place, for decoding without gradients.

    The first `update` is stored as it is. Later ones write into a buffer that grows by `GROWTH` positions, while
    transformers' own layer copies everything at every token.
    """

    keys: torch.Tensor
    values: torch.Tensor
    buffers: tuple[torch.Tensor, torch.Tensor]
    length = 0

    def update(self, key_states, value_states, *args, **kwargs):
        end = self.length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = (key_states, value_states)
        else:
            if end > self.buffers[0].shape[-2]:
                keys, values = self.buffers
                self.buffers = self._grown(keys, end + GROWTH), self._grown(values, end + GROWTH)
            for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[:, :, self.length : end] = new
        self.length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def set(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Replace all keys and values [B, H, K, D]."""
        self.buffers = self.keys, self.values = keys, values
        self.length = keys.shape[2]

    def free(self) -> None:
        """Free the memory. The layer must not be used again."""
        nothing = torch.empty(0)
        self.buffers = self.keys, self.values = nothing, nothing

    def _grown(self, buffer: torch.Tensor, capacity: int) -> torch.Tensor:
        batch, heads, _, dim = buffer.shape
        grown = buffer.new_empty(batch, heads, capacity, dim)
        grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown


class BufferedCache(Cache):
    """A cache of `BufferedLayer`s whose rows can be changed. Layers are made when the model first updates them."""

    layers: list[BufferedLayer]  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=BufferedLayer)

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor], drop: bool) -> BufferedCache:
        """Return a cache of `change(tensor)` for all keys and values [B, H, K, D]. With `drop`, empty this one."""
        other = BufferedCache()
        for index, layer in enumerate(self.layers):
            tensors = change(layer.keys), change(layer.values)
            if drop:
                layer.free()
            other.update(*tensors, index)
        return other

    def widen(self, columns: int) -> None:
        """Put `columns` empty columns before all others."""
        for layer in self.layers:
            layer.set(_widened(layer.keys, columns), _widened(layer.values, columns))

    def append(self, other: BufferedCache, width: int) -> None:
        """Append the rows of `other`, after making both caches `width` columns wide."""

        def joined(*tensors: torch.Tensor) -> torch.Tensor:
            return torch.cat([_widened(tensor, width - tensor.shape[2]) for tensor in tensors])

        for layer, theirs in zip(self.layers, other.layers, strict=True):
            layer.set(joined(layer.keys, theirs.keys), joined(layer.values, theirs.values))

    def replace(self, rows: torch.Tensor, other: BufferedCache) -> None:
        """Overwrite `rows` with the rows of `other`, at the end of the columns. `other` has at most as many columns."""
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
