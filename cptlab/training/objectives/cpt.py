"""Comparative prefix-tuning (CPT), https://arxiv.org/abs/2503.09020, eq. 8 to 12: the default objective.

    L = w_lm * l_lm + w_rank * l_rank + w_kl * l_kl                  per pair (x_a better, x_b worse), masks m
    l_rank = -log sigmoid(s(x_a) - s(x_b)),   s(x) = sum of m_t log P(x_t | x_<t, I, H)
    l_lm   = -sum of m_t log P(x_a,t | ...)
    l_kl   = sum of (1 - m_t) KL(policy || reference), over x_a and over x_b

With `w_hinge` above 0 there is one more term, which is not in the paper. The ranking loss may lower s(x_a) as long as
s(x_b) falls further (likelihood displacement); this keeps s(x_a) from falling below the backbone's:

    l_hinge = max(0, s_ref(x_a) - s(x_a))

What it does not do: the paper's second stage, which is the objective `NLL`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from cptlab.settings.setting import Setting
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs
from cptlab.training.objectives.losses import KL_DIRECTIONS, REDUCTIONS


@dataclass(frozen=True)
class CPT(Objective):
    """The weights w1, w2, w3 of eq. 12, and the two switches that turn the printed losses into SVEN's.

    `reduction` applies to `l_lm` and `l_kl`; a mean is taken over the selected positions of each program, and `l_kl`
    stays the sum of that of x_a and that of x_b. A term is measured even where its weight is 0, but for the hinge.
    """

    w_lm: Annotated[float, Setting("Weight of l_lm, w1.", at_least=0)] = 1.0
    w_rank: Annotated[float, Setting("Weight of l_rank, w2.", at_least=0)] = 4.0
    w_kl: Annotated[float, Setting("Weight of l_kl, w3.", at_least=0)] = 1.6
    w_hinge: Annotated[float, Setting("Weight of l_hinge, which is not in the paper.", at_least=0)] = 0.0
    reduction: Annotated[
        str, Setting("Whether l_lm and l_kl are sums over a program's positions or means.", choices=REDUCTIONS)
    ] = "sum"
    kl_direction: Annotated[
        str,
        Setting("Which divergence l_kl is: KL(policy || reference) or KL(reference || policy).", choices=KL_DIRECTIONS),
    ] = "policy_reference"

    reference: ClassVar[str] = "states"

    @property
    def weights(self) -> dict[str, float]:
        return {"l_lm": self.w_lm, "l_rank": self.w_rank, "l_kl": self.w_kl, "l_hinge": self.w_hinge}

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        mask, kept = outputs.mask, outputs.kept
        scores = outputs.scores(mask)
        better, worse = losses.sequence_score(scores, mask).chunk(2)
        kl_better, kl_worse = losses.kl_loss(outputs.kl(kept, self.kl_direction), kept, self.reduction).chunk(2)
        half = len(better)
        terms = {
            "l_rank": losses.rank_loss(better, worse),
            "l_lm": losses.lm_loss(scores[:half], mask[:half], self.reduction),
            "l_kl": kl_better + kl_worse,
        }
        if self.w_hinge > 0:
            before = losses.sequence_score(outputs.reference_scores(mask), mask)[:half]
            terms["l_hinge"] = losses.hinge_loss(better, before)
        return terms
