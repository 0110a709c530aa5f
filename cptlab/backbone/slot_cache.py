"""A cache of fixed size for decoding: every row has a slot, and the token at position p of a row is in column p of its slot.

Nothing grows and nothing moves, so the addresses stay, and a decoding step can be one graph. A position says where to
write and what to see, so no other book is kept. A prefix takes the columns before the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from cptlab.backbone.decode_state import PREFIX_POSITION, DecodeState


class SlotLayer(DynamicLayer):
    """The keys and values [R, H, capacity, D] of one layer. It does not know its cache: two objects that refer to each other
    would hold the memory until Python looks for such rings, which may be long after decoding."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True


class SlotCache(Cache):
    """The slots of R rows, `capacity` columns each.

    `positions` [R] are those of the tokens that come next, and `prefix` [R] counts the columns of each row's prefix. The
    model sees the first `width` columns: a position must be less.
    """

    layers: list[SlotLayer]  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, like: DecodeState, count: int, capacity: int) -> None:
        """Make `count` empty slots for keys and values such as those in `like`."""
        super().__init__(layers=[])
        device = like.real.device
        self.capacity = self.width = capacity
        self.rows = torch.arange(count, device=device)
        self.positions = torch.zeros(count, dtype=torch.long, device=device)
        self.prefix = torch.zeros_like(self.positions)
        for layer in like.cache.layers:
            empty = [
                tensor.new_zeros(count, tensor.shape[1], capacity, tensor.shape[3])
                for tensor in (layer.keys, layer.values)
            ]
            self.layers.append(SlotLayer(*empty))

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one more token per row at the row's position; return the first `width` columns."""
        layer = self.layers[layer_idx]
        layer.keys[self.rows, :, self.positions] = key_states[:, :, 0]
        layer.values[self.rows, :, self.positions] = value_states[:, :, 0]
        return layer.keys[:, :, : self.width], layer.values[:, :, : self.width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.width - 1

    def put(self, rows: Tensor, state: DecodeState, taken: Tensor) -> None:
        """Put the rows `taken` [N] of `state` into the slots `rows` [N]."""
        real = state.real.index_select(0, taken)
        length = int(real.sum(1).max())
        order = (~real).to(torch.int8).argsort(dim=1, stable=True)[:, :length]  # what is real first, in its order
        for layer, theirs in zip(self.layers, state.cache.layers, strict=True):
            for slots, tensor in ((layer.keys, theirs.keys), (layer.values, theirs.values)):
                index = order[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
                slots[rows, :, :length] = tensor.index_select(0, taken).gather(2, index)
        self.positions[rows] = state.next_position.index_select(0, taken)
        self.prefix[rows] = (real & (state.positions.index_select(0, taken) < 0)).sum(1)

    def keep(self, rows: Tensor) -> None:
        """Keep these rows alone, in this order."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
        self.positions, self.prefix = self.positions.index_select(0, rows), self.prefix.index_select(0, rows)
        self.rows = torch.arange(len(rows), device=rows.device)

    def key_positions(self) -> Tensor:
        """Return the positions [R, width] of the columns that the model sees, those of a prefix included."""
        columns = torch.arange(self.width, device=self.positions.device)
        return torch.where(columns < self.prefix[:, None], PREFIX_POSITION, columns)
