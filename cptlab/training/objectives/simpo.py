"""SimPO, https://arxiv.org/abs/2405.14734, eq. 6; TRL's CPOTrainer with loss_type="simpo" and cpo_alpha=0.

    L = l_simpo = -log sigmoid(beta [log P(x_a) / |x_a| - log P(x_b) / |x_b|] - gamma)

P over all code tokens. `gamma` is the margin after scaling by beta, as in the paper and in TRL's `simpo_gamma`; the
authors' code asks for gamma / beta instead.

What it does not do: it knows nothing of the backbone alone, so nothing in the loss holds the policy near it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from cptlab.settings.setting import Setting
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs


@dataclass(frozen=True)
class SimPO(Objective):
    """The defaults are those of the authors' code: beta 2, and gamma / beta = 0.25."""

    beta: Annotated[float, Setting("Scale of the scores.", above=0)] = 2.0
    gamma: Annotated[float, Setting("Margin, after scaling by beta.", at_least=0)] = 0.5

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        better, worse = losses.mean_score(outputs.scores(outputs.code), outputs.code).chunk(2)
        return {"l_simpo": losses.simpo_loss(better, worse, self.beta, self.gamma)}
