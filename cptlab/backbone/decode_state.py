"""The state of decoding: the key/value cache of many rows that differ in length and in the tokens that they see.

The keys of every row are at the end of the columns. The columns before them hold padding, or the keys of a former row,
and are not `real`. Rows can be picked, repeated, replaced in place and appended without another forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cptlab.backbone.kv_cache import BufferedCache

PREFIX_POSITION = -1  # position of a prefix's keys: before every token, and outside of every window


@dataclass
class DecodeState:
    """The cache of B rows, with the position of each column in each row.

    `real` and `positions` are [B, K] over the cached keys, prefix included, and `next_position` is [B]. `padded` is True
    if some column of some row may not be real.
    """

    cache: BufferedCache
    real: Tensor
    positions: Tensor
    next_position: Tensor
    padded: bool

    @property
    def rows(self) -> int:
        return len(self.real)

    def select(self, rows: Tensor) -> DecodeState:
        """Keep these rows, in this order (an index may occur more than once). Changes and returns this state."""
        return self._become(self.copy(rows, drop=True))

    def repeat(self, n: int) -> DecodeState:
        """Follow every row by n - 1 copies: row i becomes rows i·n to i·n + n - 1. Changes and returns this state."""
        return self.select(torch.arange(self.rows, device=self.real.device).repeat_interleave(n))

    def copy(self, rows: Tensor, drop: bool = False) -> DecodeState:
        """Return these rows as another state. With `drop`, free the layers of this one, which must not be used again."""
        rows = rows.to(self.real.device)
        first = 0
        real = self.real.index_select(0, rows)
        if self.padded and len(rows):  # leave out leading columns that no row needs
            first = int(real.any(0).int().argmax())
        cache = self.cache.mapped(lambda tensor: tensor[:, :, first:].index_select(0, rows), drop)
        state = DecodeState(
            cache, real[:, first:].contiguous(), self.positions.index_select(0, rows)[:, first:].contiguous(),
            self.next_position.index_select(0, rows), self.padded,
        )  # fmt: skip
        state.padded = self.padded and not bool(state.real.all())
        return state

    def rewind(self, positions: Tensor) -> DecodeState:
        """Drop all tokens from `positions` [B] on, and move the others to the end. Changes and returns this state."""
        keep = self.real & (self.positions < positions[:, None])
        counts = keep.sum(1)
        width = int(counts.max())
        # the kept columns, in their order, behind some others
        order = keep.int().argsort(dim=1, stable=True)[:, keep.shape[1] - width :]
        cache = self.cache.mapped(
            lambda tensor: tensor.gather(2, order[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])),
            True,
        )
        real = torch.arange(width, device=order.device)[None] >= width - counts[:, None]
        return self._become(
            DecodeState(cache, real, self.positions.gather(1, order), positions.clone(), not bool(real.all()))
        )

    def append(self, other: DecodeState) -> DecodeState:
        """Append the rows of `other`. Changes and returns this state."""
        width = max(self.real.shape[1], other.real.shape[1])
        self.cache.append(other.cache, width)
        for name in ("real", "positions"):
            parts = [
                torch.nn.functional.pad(t, (width - t.shape[1], 0)) for t in (getattr(self, name), getattr(other, name))
            ]
            setattr(self, name, torch.cat(parts))
        self.next_position = torch.cat([self.next_position, other.next_position])
        self.padded = self.padded or other.padded or not bool(self.real.all())
        return self

    def replace(self, rows: Tensor, other: DecodeState) -> DecodeState:
        """Overwrite `rows` by the rows of `other`. Changes and returns this state."""
        surplus = other.real.shape[1] - self.real.shape[1]
        if surplus > 0:
            self.cache.widen(surplus)
            self.real, self.positions = (torch.nn.functional.pad(t, (surplus, 0)) for t in (self.real, self.positions))
        self.cache.replace(rows, other.cache)
        self.real[rows] = False
        start = self.real.shape[1] - other.real.shape[1]
        self.real[rows, start:] = other.real
        self.positions[rows, start:] = other.positions
        self.next_position[rows] = other.next_position
        self.padded = True
        return self

    def trim(self, least: int) -> DecodeState:
        """Drop the leading columns that no row needs, if at least `least` are unused. Changes and returns this state."""
        if self.padded and self.real.shape[1] > least and not bool(self.real[:, :least].any()):
            self.select(torch.arange(self.rows, device=self.real.device))
        return self

    def _become(self, other: DecodeState) -> DecodeState:
        vars(self).update(vars(other))
        return self
