"""Mix where the model is unsure: where the entropy of its next-token distribution exceeds a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cptlab.errors import UserError


@dataclass(frozen=True)
class Entropy:
    """`threshold` in nats."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise UserError(
                f"gate.threshold is {self.threshold}, so every step would be mixed. Give more than 0 nats, or gate=always."
            )

    def opens(self, logits: Tensor) -> Tensor:
        return entropy(logits) > self.threshold


def entropy(logits: Tensor) -> Tensor:
    """Nats, [B], of softmax(logits [B, V]); a banned token (−inf) adds nothing."""
    logs = logits.float().log_softmax(-1) if logits.dtype in (torch.float16, torch.bfloat16) else logits.log_softmax(-1)
    return -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)
