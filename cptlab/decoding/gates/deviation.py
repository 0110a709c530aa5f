"""Mix where the next-token distribution is flat: where its standard deviation is below a threshold (USCD's gate).

USCD (arXiv 2409.05923) measures how sure a model is by the standard deviation of its probabilities over the vocabulary:
a sure model has one large probability and so a large deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cptlab.errors import UserError


@dataclass(frozen=True)
class Deviation:
    """`threshold`: of the standard deviation of the probabilities, in units of the largest possible one (a distribution with
    all mass on one token), so that 0 < threshold < 1 whatever the vocabulary."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UserError(
                f"gate.threshold is {self.threshold}. Give a share of the largest deviation, above 0 and at most 1."
            )

    def opens(self, logits: Tensor) -> Tensor:
        probs = logits.float().softmax(-1)
        size = probs.shape[-1]
        largest = ((1 - 1 / size) / size) ** 0.5  # of a vector with one 1 and size - 1 zeros
        return probs.std(-1, correction=0) / largest < self.threshold
