"""Prefix-tuning on the better programs, https://arxiv.org/abs/2101.00190, and the second stage of CPT (eq. 13).

    L = l_nll = -sum of log P(x_a,t | x_a,<t, I, H)        over all code tokens of x_a

What it does not do: it never sees a worse program, nor the differences, nor the backbone's own probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs


@dataclass(frozen=True)
class SinglePrefix(Objective):
    """`reduction`: the sum over the code tokens of a program (as printed), or their mean."""

    reduction: str = "sum"

    better_only: ClassVar[bool] = True

    @classmethod
    def after(cls, objective: Objective) -> SinglePrefix:
        """The second stage of a run whose first stage is `objective`, with its reduction if it has one."""
        return cls(reduction=getattr(objective, "reduction", "sum"))

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        return {"l_nll": losses.nll_loss(outputs.scores(outputs.code), outputs.code, self.reduction)}
