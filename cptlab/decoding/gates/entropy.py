"""Mix if the model is unsure, that is, if the entropy of its next-token distribution exceeds a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class Entropy:
    threshold: Annotated[float, Setting("Mix above this entropy, in nats.", above=0)] = 0.5

    def __post_init__(self) -> None:
        check_settings(self)

    def opens(self, logits: Tensor) -> Tensor:
        return entropy(logits) > self.threshold


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy [B] of softmax(logits [B, V]) in nats. A banned token (−inf) adds nothing."""
    logs = logits.float().log_softmax(-1) if logits.dtype in (torch.float16, torch.bfloat16) else logits.log_softmax(-1)
    return -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)
