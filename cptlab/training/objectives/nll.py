"""The negative log-likelihood of the better programs: CPT's second stage (https://arxiv.org/abs/2503.09020, eq. 13).

    L = l_nll = -sum of log P(x_a,t | x_a,<t, I)        over all code tokens of x_a

With a prefix this is prefix-tuning (https://arxiv.org/abs/2101.00190), CPT's baseline of a single prefix; with all weights,
its baseline of full fine-tuning on the better programs.

What it does not do: it never sees a worse program, nor the differences, nor the backbone's own probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from cptlab.settings.setting import Setting
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs
from cptlab.training.objectives.losses import REDUCTIONS


@dataclass(frozen=True)
class NLL(Objective):
    """The sum is the printed loss; the mean is over the code tokens of a program."""

    reduction: Annotated[
        str, Setting("Whether the loss of a program is the sum over its code tokens or their mean.", choices=REDUCTIONS)
    ] = "sum"

    better_only: ClassVar[bool] = True

    @classmethod
    def after(cls, objective: Objective) -> NLL:
        """Return the second stage of a run whose first stage is `objective`, with its reduction if it has one."""
        return cls(reduction=getattr(objective, "reduction", "sum"))

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        return {"l_nll": losses.nll_loss(outputs.scores(outputs.code), outputs.code, self.reduction)}
