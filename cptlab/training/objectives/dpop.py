"""DPO-Positive (DPOP, Smaug), https://arxiv.org/abs/2402.13228, eq. 3: DPO that may not lower the better program.

    L = l_dpop = -log sigmoid(beta [r(x_a) - r(x_b) - penalty * max(0, s_ref(x_a) - s(x_a))])

r = s - s_ref as in DPO. The paper is about pairs that differ in few tokens, which is what CPT selects.

What it does not do: the penalty is inside the sigmoid, as printed; a hinge beside the loss is CPT's `w_hinge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs
from cptlab.training.objectives.dpo import log_ratios


@dataclass(frozen=True)
class DPOP(Objective):
    """`penalty` is the paper's lambda; with 0 this is DPO. `over` as in DPO."""

    beta: float = 0.3
    penalty: float = 50.0
    over: str = "code"

    reference: ClassVar[str] = "scores"

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        return {"l_dpop": losses.dpop_loss(*log_ratios(outputs, self.over), self.beta, self.penalty)}
