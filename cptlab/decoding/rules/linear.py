"""ω · f(E) + (1 − ω) · f(E') on raw logits (SPA eq. 18)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    def mix(self, clean: Tensor, second: Tensor, omega: Tensor | float) -> Tensor:
        return mix(clean, second, omega)


def mix(clean: Tensor, second: Tensor, omega: Tensor | float) -> Tensor:
    """Return F(ω) [B, V], float32 or wider, from both streams' raw logits [B, V]. `omega` is a number or [B, 1].

    A token with −inf in either stream is banned and stays banned.
    """
    if clean.dtype in (torch.float16, torch.bfloat16):
        clean, second = clean.float(), second.float()
    banned = torch.isneginf(clean) | torch.isneginf(second)
    return (omega * clean + (1 - omega) * second).masked_fill(banned, -torch.inf)
