"""Operators that the host would have to wait for, seen on a CPU."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = ("nonzero", "_unique", "unique", "item", "_local_scalar_dense", "masked_select", "equal", "is_nonzero")


class WaitsForTheDevice(RuntimeError):
    """An operator whose answer, or the size of it, the host would have to wait for."""


class NoWaiting(TorchDispatchMode):
    """Within it, an operator raises whose result depends on the contents of a tensor in its size, or is no tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(tensor, Tensor) and tensor.dtype in (torch.bool, torch.uint8) for tensor in tree_leaves(args[1])
        )
        if by_mask or name.startswith(WAITING):
            raise WaitsForTheDevice(str(func))
        return func(*args, **(kwargs or {}))
