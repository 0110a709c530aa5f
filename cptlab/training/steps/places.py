"""Which hidden states a loss reads, and where its values go: found on the host, when a batch is laid out.

A boolean index asks the device how many places there are, and the host waits for the answer. What is found here has its
sizes on the host, so that forward, loss and backward run without such a wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

STEPS_PER_DOUBLING = 8  # of planned sizes: at most an eighth is padding


@dataclass(frozen=True)
class Places:
    """U places, each once, though both programs of a pair may need it.

    `sources` [U] are the rows of hidden states that predict there, `states` [U] their rows among the predicting places alone,
    and `targets` [U] the tokens that are predicted. `spread` [R · C] says which place belongs to each code token; U where
    there is none.
    """

    sources: Tensor
    states: Tensor
    targets: Tensor
    spread: Tensor

    def spread_out(self, values: Tensor, shape: torch.Size) -> Tensor:
        """Return `values` [U] at the code tokens [R, C] that they belong to, and 0 elsewhere."""
        return torch.nn.functional.pad(values, (0, 1)).index_select(0, self.spread).view(shape)


@dataclass(frozen=True)
class Region:
    """The places of a mask [R, C]: for `scores`, a token at a place counts once; for a divergence (`kl`), a place does."""

    scores: Places
    kl: Places

    @classmethod
    def of(cls, where: np.ndarray, layout: Layout, planned: bool = False) -> Region:
        """Find the places where `where` is set."""
        chosen, tokens = layout.source[where], layout.tokens[where]
        columns = chosen, layout.state[where], tokens
        base = int(layout.tokens.max(initial=0)) + 1
        return cls(*(_places(keys, columns, where, planned) for keys in (chosen * base + tokens, chosen)))


@dataclass(frozen=True)
class Layout:
    """Of every code token [R, C], on the host: the token, and which place predicts it (see `Packed`). `masks` are those that
    objectives name."""

    tokens: np.ndarray
    source: np.ndarray
    state: np.ndarray
    masks: dict[str, np.ndarray]

    def regions(self, planned: bool = False) -> dict[str, Region]:
        return {name: Region.of(where, self, planned) for name, where in self.masks.items()}


def planned_size(count: int) -> int:
    """The next of a few sizes, eight from one power of two to the next."""
    step = max(32, (1 << count.bit_length()) // (2 * STEPS_PER_DOUBLING))
    return -(-count // step) * step


def _places(keys: np.ndarray, columns: tuple[np.ndarray, ...], where: np.ndarray, planned: bool) -> Places:
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    found = [column[first] for column in columns]
    if planned:  # a place that nothing is spread from has no gradient
        missing = planned_size(max(1, len(first))) - len(first)
        found = [np.pad(column, (0, missing)) for column in found]
    spread = np.full(where.shape, len(found[0]))
    spread[where] = back
    sources, states, targets = map(torch.from_numpy, found)
    return Places(sources, states, targets, torch.from_numpy(spread.ravel()))
