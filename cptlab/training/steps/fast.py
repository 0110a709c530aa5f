"""The same step without what is computed twice or not needed.

- what both programs of a pair begin with is computed once (`packing`);
- what the backbone alone says is read from disk, where it was kept (`reference`), or computed on the packed rows;
- the head is applied where a loss needs it and nowhere else, some rows at a time (`head`);
- the places of these rows are found on the host beforehand, so that it never waits for the device (`places`).

Nothing is approximated: it agrees with `plain` to rounding. Attention has a mask, or goes by sequences, over one row of all
pairs, where the device has a kernel for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cptlab.adapters.base import Policy
from cptlab.backbone import Backbone
from cptlab.backbone.sequence_attention import states_of_sequences
from cptlab.training.steps.batches import Batch, ReferenceRows
from cptlab.training.steps.head import position_kl, token_scores
from cptlab.training.steps.outputs import BatchOutputs
from cptlab.training.steps.packing import Packed
from cptlab.training.steps.places import Places, Region


class FastOutputs(BatchOutputs):
    """Of the packed rows, hidden states; the head where it is asked for."""

    def __init__(
        self,
        backbone: Backbone,
        batch: Batch,
        policies: Sequence[Policy],
        by_sequences: bool = False,
        shared: bool = True,
    ) -> None:
        """`shared`: what both programs begin with is computed once; attention `by_sequences` always does so."""
        super().__init__(backbone, batch, policies)
        self.by_sequences, self.shared = by_sequences, shared
        self._reference_states: Tensor | None = None

    @property
    def packed(self) -> Packed:
        if self.by_sequences:
            return self.batch.one_row
        return self.batch.packed if self.shared else self.batch.programs

    def scores(self, where: Tensor, policy: int = 0) -> Tensor:
        places = self._region(where).scores
        return self._scores(self._of(policy), places.sources, places, where)

    def kl(self, where: Tensor, direction: str, policy: int = 0) -> Tensor:
        places = self._region(where).kl  # a place in the common code stands in both programs
        hidden = self._of(policy).index_select(0, places.sources)
        values = position_kl(hidden, self._reference.index_select(0, places.states), self.backbone.head, direction)
        return places.spread_out(values, where.shape)

    def reference_scores(self, where: Tensor) -> Tensor:
        if self.batch.reference is not None:
            return self.batch.reference.scores.masked_fill(~where, 0)
        with torch.no_grad():
            places = self._region(where).scores
            return self._scores(self._reference, places.states, places, where)

    def reference_rows(self) -> ReferenceRows:
        """What the backbone alone says of the batch, to be kept."""
        return ReferenceRows(self._reference, self.reference_scores(self.code))

    def _scores(self, hidden: Tensor, rows: Tensor, places: Places, where: Tensor) -> Tensor:
        """Log-probabilities [R, C] of the code tokens; `rows` [U] are those of `hidden` that predict the places."""
        values = token_scores(hidden.index_select(0, rows), places.targets, self.backbone.head)
        return places.spread_out(values, where.shape)

    def _region(self, where: Tensor) -> Region:
        """The places of a mask; those that objectives ask for were found when the batch was laid out."""
        for name, mask in (("mask", self.mask), ("kept", self.kept), ("code", self.code)):
            if where is mask:
                return self.packed.regions[name]
        return self.packed.region(where)

    @property
    def _reference(self) -> Tensor:
        """The backbone's own hidden states at the predicting places [N, E]."""
        if self._reference_states is None:  # no cached_property: its lock cannot be compiled
            self._reference_states = self._states_of_reference()
        return self._reference_states

    def _states_of_reference(self) -> Tensor:
        if self.batch.reference is not None:
            return self.batch.reference.states.to(self.backbone.head.weight.dtype)
        with torch.no_grad():
            return self._run(Policy(self.backbone)).index_select(0, self.packed.predicting)

    def _run(self, policy: Policy) -> Tensor:
        """Return hidden states [B · T, E]."""
        packed, backbone = self.packed, policy.backbone
        if packed.sequences is not None:
            states = states_of_sequences(backbone, packed.input_ids, packed.positions, packed.sequences, policy.prefix)
        else:
            assert packed.segments is not None
            states = backbone.hidden_states(packed.input_ids, packed.positions, packed.segments, policy.prefix)
        return states.flatten(0, 1)
