"""SVEN, https://arxiv.org/abs/2302.05319, with the losses of its public code (eth-sri/sven, sven/trainer.py).

Two policies (in the paper: two prefixes), 0 for better and 1 for worse code. Each program is a sample of its own, with
its own policy c (x_a: 0, x_b: 1) and the opposite one, not c. Per sample, m the differences:

    L = w_lm * l_lm + w_contrast * l_contrast + w_kl * l_kl
    l_lm       = -mean over m_t of log P_c(x_t)
    l_contrast = -mean over m_t of log [P_c(x_t) / (P_c(x_t) + P_not_c(x_t))]
    l_kl       = mean over (1 - m_t) of KL(reference || policy_c), plus the same of policy_not_c

The terms of a pair are the mean of those of its two samples, so one step on a pair is SVEN with the batch size 2 that
its code accumulates.

What it does not do: SVEN's choice of a character- or line-level mask per kind of change (the masks are those of the
pairs), its warm-up, and its learning rate of 1e-2. The public code leaves a sample with an empty mask out; here its
masked terms are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from cptlab.settings.setting import Setting
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective, Outputs
from cptlab.training.objectives.losses import KL_DIRECTIONS, REDUCTIONS


@dataclass(frozen=True)
class SVEN(Objective):
    """The defaults are the public code's: means, KL(reference || policy), ratios 1, 400/100 and 1600/1000."""

    w_lm: Annotated[float, Setting("Weight of l_lm.", at_least=0)] = 1.0
    w_contrast: Annotated[float, Setting("Weight of l_contrast.", at_least=0)] = 4.0
    w_kl: Annotated[float, Setting("Weight of l_kl.", at_least=0)] = 1.6
    reduction: Annotated[
        str, Setting("Whether the terms are sums over a program's positions or means.", choices=REDUCTIONS)
    ] = "mean"
    kl_direction: Annotated[
        str,
        Setting("Which divergence l_kl is: KL(policy || reference) or KL(reference || policy).", choices=KL_DIRECTIONS),
    ] = "reference_policy"

    policies: ClassVar[int] = 2
    reference: ClassVar[str] = "states"

    @property
    def weights(self) -> dict[str, float]:
        return {"l_lm": self.w_lm, "l_contrast": self.w_contrast, "l_kl": self.w_kl}

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        mask, kept = outputs.mask, outputs.kept
        better, worse = outputs.scores(mask, policy=0), outputs.scores(mask, policy=1)
        half = len(mask) // 2
        own = torch.cat([better[:half], worse[half:]])
        other = torch.cat([worse[:half], better[half:]])
        divergence = sum(
            losses.kl_loss(outputs.kl(kept, self.kl_direction, policy=c), kept, self.reduction) for c in (0, 1)
        )
        samples = {
            "l_lm": losses.lm_loss(own, mask, self.reduction),
            "l_contrast": losses.contrastive_loss(own, other, mask, self.reduction),
            "l_kl": divergence,
        }
        return {name: (term[:half] + term[half:]) / 2 for name, term in samples.items()}
