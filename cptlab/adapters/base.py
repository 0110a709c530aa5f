"""What an adapter is: numbers that are trained on a frozen backbone, and the model that they make of it."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from cptlab.backbone import Backbone, KeyValuePrefix


@dataclass(frozen=True)
class Policy:
    """A model that is run: a backbone, and the prefix of keys and values before its texts, if any."""

    backbone: Backbone
    prefix: KeyValuePrefix | None = None


class Adapter(nn.Module):
    """Its parameters are what is trained; `kind` names it in configurations, and its directory in a training run.

    `positions` are those of the context that it takes. `fast_step`: whether the fast training step can run it.
    """

    kind: ClassVar[str]
    fast_step: ClassVar[bool] = False
    positions: int = 0

    @abstractmethod
    def policy(self, backbone: Backbone) -> Policy:
        """The model that this adapter makes of the frozen `backbone`, which stays as it is."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 over what the policy computes with, for the names of stored results."""

    @abstractmethod
    def export(self, directory: str | os.PathLike, backbone: Backbone, extra: dict[str, Any] | None = None) -> None:
        """Write it in the format that other tools read. `extra` is plain data for `cptlab.json`."""
