"""The step as it is written: every program a row of its own, all logits, softmaxes over the whole vocabulary.

The readable step that `fast.py` must agree with, and the only one for adapters that change the model's weights.
`compute.step=plain` trains with it.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from cptlab.adapters.base import Policy
from cptlab.training.objectives import losses
from cptlab.training.steps.outputs import BatchOutputs


class PlainOutputs(BatchOutputs):
    """Of every code token's place, log-probabilities of the whole vocabulary."""

    def scores(self, where: Tensor, policy: int = 0) -> Tensor:
        return self._scores(self._of(policy), where)

    def kl(self, where: Tensor, direction: str, policy: int = 0) -> Tensor:
        return losses.position_kl(self._of(policy), self._reference, direction).masked_fill(~where, 0)

    def reference_scores(self, where: Tensor) -> Tensor:
        return self._scores(self._reference, where)

    def _scores(self, log_probabilities: Tensor, where: Tensor) -> Tensor:
        return losses.token_log_probs(log_probabilities, self.batch.tokens).masked_fill(~where, 0)

    @cached_property
    def _reference(self) -> Tensor:
        with torch.no_grad():
            return self._run(Policy(self.backbone))

    def _run(self, policy: Policy) -> Tensor:
        """Log-probabilities [R, C, V] at every code token's place."""
        rows = self.batch.padded
        logits = policy.backbone.logits(rows.input_ids, rows.attention_mask, policy.prefix)
        return losses.log_probs(logits[:, rows.start - 1 : -1])
