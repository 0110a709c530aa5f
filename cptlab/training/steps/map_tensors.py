"""Change every tensor that a batch holds, whatever its parts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def map_tensors(value: Value, change: Callable[[Tensor], Tensor]) -> Value:
    """Return `value` with each tensor changed: one itself, and those of dataclasses and dictionaries, at any depth."""
    held: Any = value
    if isinstance(held, Tensor):
        return change(held)  # pyright: ignore[reportReturnType]
    if isinstance(held, dict):
        return {name: map_tensors(one, change) for name, one in held.items()}  # pyright: ignore[reportReturnType]
    if is_dataclass(held) and not isinstance(held, type):
        return replace(held, **{f.name: map_tensors(getattr(held, f.name), change) for f in fields(held)})  # pyright: ignore[reportReturnType]
    return value


def to_device(value: Value, device: torch.device) -> Value:
    """Return `value` with its tensors on `device`. From pinned memory the host does not wait for the copies."""
    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))
