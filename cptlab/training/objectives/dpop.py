"""DPO-Positive (DPOP, Smaug), https://arxiv.org/abs/2402.13228, eq. 3: DPO that may not lower the better program.

    L = l_dpop = -log sigmoid(beta [r(x_a) - r(x_b) - penalty * max(0, s_ref(x_a) - s(x_a))])

r = s - s_ref as in DPO. The paper is about pairs that differ in few tokens, which is what CPT selects.

What it does not do: the penalty is inside the sigmoid, as printed; a hinge beside the loss is CPT's `w_hinge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from cptlab.settings.setting import Setting
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import OVER, Objective, Outputs
from cptlab.training.objectives.dpo import log_ratios


@dataclass(frozen=True)
class DPOP(Objective):
    """`penalty` is the paper's lambda; with 0 this is DPO. `over` as in DPO."""

    beta: Annotated[float, Setting("Strength of the KL penalty.", above=0)] = 0.3
    penalty: Annotated[float, Setting("The paper's lambda; with 0 this is DPO.", at_least=0)] = 50.0
    over: Annotated[str, Setting("Whether P(x) is of all code tokens or of the differences.", choices=OVER)] = "code"

    reference: ClassVar[str] = "scores"

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        return {"l_dpop": losses.dpop_loss(*log_ratios(outputs, self.over), self.beta, self.penalty)}
