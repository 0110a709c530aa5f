"""ORPO, https://arxiv.org/abs/2403.07691, eq. 6 and 7; TRL's ORPOTrainer.

    L = l_nll + w_odds * l_odds
    l_nll  = -log P(x_a) / |x_a|
    l_odds = -log sigmoid(log odds(x_a) - log odds(x_b)),   odds = p / (1 - p),   p = exp(log P(x) / |x|)

P over all code tokens. `w_odds` is the paper's lambda, TRL's `beta`.

What it does not do: TRL takes the NLL over prompt and response and as a mean over the tokens of a batch; this one is
the paper's, over the response, per program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from cptlab.settings.setting import Setting
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs


@dataclass(frozen=True)
class ORPO(Objective):
    """`w_odds`: lambda, 0.1 as for most models of the paper."""

    w_odds: Annotated[float, Setting("The paper's lambda.", at_least=0)] = 0.1

    @property
    def weights(self) -> dict[str, float]:
        return {"l_odds": self.w_odds}

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        better, worse = losses.mean_score(outputs.scores(outputs.code), outputs.code).chunk(2)
        return {"l_nll": -better, "l_odds": losses.odds_ratio_loss(better, worse)}
