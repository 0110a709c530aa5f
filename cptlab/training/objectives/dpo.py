"""Direct preference optimisation (DPO), https://arxiv.org/abs/2305.18290, eq. 7; TRL's loss_type="sigmoid".

    L = l_dpo = -log sigmoid(beta [r(x_a) - r(x_b)]),   r(x) = log P(x | I, H) - log P(x | I) of the backbone alone

What it does not do: no label smoothing, no other divergence than the reverse KL, no length normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from cptlab.settings.setting import Setting
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import OVER, Objective, Outputs


@dataclass(frozen=True)
class DPO(Objective):
    """`over`: log P(x) of all code tokens (the paper), or of the differences alone, as CPT's ranking loss."""

    beta: Annotated[float, Setting("Strength of the KL penalty.", above=0)] = 0.1
    over: Annotated[str, Setting("Whether P(x) is of all code tokens or of the differences.", choices=OVER)] = "code"

    reference: ClassVar[str] = "scores"

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        return {"l_dpo": losses.dpo_loss(*log_ratios(outputs, self.over), self.beta)}


def log_ratios(outputs: Outputs, over: str) -> tuple[Tensor, Tensor]:
    """r(x_a) and r(x_b), each [B]: the log-ratio of policy to backbone alone, summed over `over`."""
    where = outputs.code if over == "code" else outputs.mask
    ratio = losses.sequence_score(outputs.scores(where) - outputs.reference_scores(where), where)
    better, worse = ratio.chunk(2)
    return better, worse
