"""What an adapter is: parameters trained on a frozen backbone, and the policy that they make of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cptlab.backbone import Backbone, KeyValuePrefix


@dataclass(frozen=True)
class Policy:
    """A model that is run: a backbone, and the prefix of keys and values before its texts, if any."""

    backbone: Backbone
    prefix: KeyValuePrefix | None = None


class Adapter(nn.Module):
    """A module whose parameters are all that training changes. Subclasses say how they act on a backbone.

    `kind` names it in configurations, and its directory in a training run. `fast_step`: whether the fast training step
    can run it. `positions`: the positions of the context that it takes. `note`: a sentence on its start for the user, if any.
    """

    kind: ClassVar[str]
    fast_step: ClassVar[bool] = False
    positions: int = 0
    note: str | None = None

    @abstractmethod
    def policy(self, backbone: Backbone) -> Policy:
        """Return the model that this adapter makes of the frozen `backbone`, which stays as it is."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return plain data that two adapters share if one can load the parameters of the other."""

    @abstractmethod
    def digest(self) -> str:
        """Return a SHA-256 over what the policy computes with, for the names of stored results."""

    @abstractmethod
    def export(self, directory: str | os.PathLike, backbone: Backbone, extra: dict[str, Any] | None = None) -> None:
        """Write the adapter in the format that other tools read. `extra` is plain data for `cptlab.json`."""

    def tensors(self) -> list[Tensor]:
        """Return what the policy computes with, as functions of the parameters: by default the parameters themselves."""
        return list(self.parameters())

    def with_tensors(self, tensors: Sequence[Tensor]) -> Adapter:
        """Return the adapter whose parameters are these `tensors`, detached, so that gradients can be taken by them.

        An adapter whose `tensors` are its parameters is that adapter.
        """
        return self

    def seeded_randomness(self, *numbers: int) -> contextlib.AbstractContextManager:
        """Within it, what the policy draws at random in training depends on the adapter's seed and `numbers` alone."""
        return contextlib.nullcontext()


def tensor_digest(tensors: Mapping[str, Tensor], *facts: Any) -> str:
    """Return a SHA-256 over `facts` and over names, types and content of tensors."""
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content = tensor.detach().cpu().contiguous()
        digest.update(content.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
