"""Mix only if the plain program failed: the later version of SPA (arXiv 2408.09121v2 and after).

A program is first generated without a second stream and run on the task's public tests. If it fails one, it is
generated again with the second stream at every step. samples.py does so; to the engine this gate is always open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class FailedTests:
    after_failure: ClassVar[bool] = True

    def opens(self, logits: Tensor) -> Tensor:
        return torch.ones(len(logits), dtype=torch.bool, device=logits.device)
