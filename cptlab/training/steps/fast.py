"""The same step without what is computed twice or not needed.

- what both programs of a pair begin with is computed once (`packing`);
- what the backbone alone says is read from disk, where it was kept (`reference`), or computed on the packed rows;
- the head is applied where a loss needs it and nowhere else, some rows at a time (`head`).

Nothing is approximated: it agrees with `plain` to rounding.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from cptlab.adapters.base import Policy
from cptlab.training.steps.batches import ReferenceRows
from cptlab.training.steps.head import position_kl, token_scores
from cptlab.training.steps.outputs import BatchOutputs


class FastOutputs(BatchOutputs):
    """Of the packed rows, hidden states; the head where it is asked for."""

    def scores(self, where: Tensor, policy: int = 0) -> Tensor:
        return self._scores(self._of(policy), self.batch.packed.source, where)

    def kl(self, where: Tensor, direction: str, policy: int = 0) -> Tensor:
        packed = self.batch.packed
        # a place in the common code stands in both programs
        places, back = packed.source[where].unique(return_inverse=True)
        states = torch.zeros_like(places).scatter_(0, back, packed.state[where])
        hidden = self._of(policy).index_select(0, places)
        values = position_kl(hidden, self._reference.index_select(0, states), self.backbone.head, direction)
        return _spread(values.index_select(0, back), where)

    def reference_scores(self, where: Tensor) -> Tensor:
        if self.batch.reference is not None:
            return self.batch.reference.scores.masked_fill(~where, 0)
        with torch.no_grad():
            return self._scores(self._reference, self.batch.packed.state, where)

    def reference_rows(self) -> ReferenceRows:
        """What the backbone alone says of the batch, to be kept."""
        return ReferenceRows(self._reference, self.reference_scores(self.code))

    def _scores(self, hidden: Tensor, source: Tensor, where: Tensor) -> Tensor:
        """Log-probabilities [R, C] of the code tokens, `source` [R, C] saying which row of `hidden` predicts each."""
        tokens, source = self.batch.tokens[where], source[where]
        vocabulary = self.backbone.head.weight.shape[0]
        # the same token at a place in the common code counts for both programs
        keys, back = (source * vocabulary + tokens).unique(return_inverse=True)
        places, targets = keys // vocabulary, keys % vocabulary
        values = token_scores(hidden.index_select(0, places), targets, self.backbone.head)
        return _spread(values.index_select(0, back), where)

    @cached_property
    def _reference(self) -> Tensor:
        """The backbone's own hidden states at the predicting places [N, E]."""
        if self.batch.reference is not None:
            return self.batch.reference.states.to(self.backbone.head.weight.dtype)
        with torch.no_grad():
            return self._run(Policy(self.backbone)).index_select(0, self.batch.packed.predicting)

    def _run(self, policy: Policy) -> Tensor:
        """Return hidden states [B · T, E]."""
        packed = self.batch.packed
        states = policy.backbone.hidden_states(packed.input_ids, packed.positions, packed.segments, policy.prefix)
        return states.flatten(0, 1)


def _spread(values: Tensor, where: Tensor) -> Tensor:
    """`values` at the places of `where` [R, C], in order, and 0 elsewhere."""
    return values.new_zeros(where.shape).masked_scatter(where, values)
