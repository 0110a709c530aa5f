"""Mix linearly among plausible tokens only: those with at least a share of the likeliest token's probability.

This is the plausibility constraint of contrastive decoding (arXiv 2210.15097, eq. 2). Without it, a large ω could lift
tokens that neither stream would ever choose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cptlab.decoding.rules.linear import mix
from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class Plausible:
    floor: Annotated[
        float,
        Setting("Smallest share of the likeliest token's probability, in the first stream.", above=0, at_most=1),
    ] = 0.1

    def __post_init__(self) -> None:
        check_settings(self)

    def mix(self, clean: Tensor, second: Tensor, omega: Tensor | float) -> Tensor:
        if clean.dtype in (torch.float16, torch.bfloat16):
            clean, second = clean.float(), second.float()
        smallest = clean.max(-1, keepdim=True).values + math.log(self.floor)
        return mix(clean, second, omega).masked_fill(clean < smallest, -torch.inf)
