"""Mix if the next-token distribution is flat, that is, if its standard deviation is below a threshold (USCD's gate).

USCD (arXiv 2409.05923) measures how sure a model is by the standard deviation of its probabilities over the vocabulary:
a sure model has one large probability and so a large deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class Deviation:
    """The threshold is in units of the largest possible deviation, that of a distribution with all mass on one token, so
    that its range does not depend on the vocabulary."""

    threshold: Annotated[
        float, Setting("Mix below this share of the largest possible standard deviation.", above=0, at_most=1)
    ] = 0.5

    def __post_init__(self) -> None:
        check_settings(self)

    def opens(self, logits: Tensor) -> Tensor:
        probs = logits.float().softmax(-1)
        size = probs.shape[-1]
        largest = ((1 - 1 / size) / size) ** 0.5  # of a vector with one 1 and size - 1 zeros
        return probs.std(-1, correction=0) / largest < self.threshold
