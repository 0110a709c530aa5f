"""What both step methods have of a batch: its masks, and what the backbone makes of it under each prefix, once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cptlab.adapters.prefix import Prefix
from cptlab.backbone import Backbone
from cptlab.training.steps.batches import Batch


class BatchOutputs:
    """What an objective may ask of one batch under some prefixes (see `objectives.base.Outputs`), but for the asking."""

    def __init__(self, backbone: Backbone, batch: Batch, prefixes: Sequence[Prefix]) -> None:
        self.backbone, self.batch, self.prefixes = backbone, batch, prefixes
        self.mask, self.code = batch.mask, batch.code
        self._policies: dict[int, Tensor] = {}

    def _run(self, prefix: Prefix | None) -> Tensor:
        """What the step needs of the backbone, with a prefix or alone."""
        raise NotImplementedError

    def _policy(self, index: int) -> Tensor:
        """`_run` with the prefix of that index."""
        if index not in self._policies:
            self._policies[index] = self._run(self.prefixes[index])
        return self._policies[index]
