"""What both step methods have of a batch: its masks, and what each policy computes of it, once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cptlab.adapters.base import Policy
from cptlab.backbone import Backbone
from cptlab.training.steps.batches import Batch


class BatchOutputs:
    """A batch, the policies that are trained, and the reference model: `backbone` alone.

    Subclasses answer what an objective asks (see `objectives.base.Outputs`).
    """

    def __init__(self, backbone: Backbone, batch: Batch, policies: Sequence[Policy]) -> None:
        self.backbone, self.batch, self.policies = backbone, batch, policies
        self.mask, self.kept, self.code = batch.mask, batch.kept, batch.code
        self._of_policies: dict[int, Tensor] = {}

    def _run(self, policy: Policy) -> Tensor:
        """Run a policy, or the reference model, on the batch."""
        raise NotImplementedError

    def _of(self, number: int) -> Tensor:
        """Return `_run` of the policy with that number."""
        if number not in self._of_policies:
            self._of_policies[number] = self._run(self.policies[number])
        return self._of_policies[number]
