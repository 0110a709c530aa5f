"""Count the bytes of the tensors that are alive, one storage at a time."""

import weakref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within it, `now` and `peak` are the bytes of all tensors that were made and are still alive.

    Tensors that share a storage count once; those that were there before do not count.
    """

    def __init__(self, *before: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._before = [tensor.untyped_storage() for tensor in before]  # held, so that no other storage gets its id
        self._seen = {id(storage) for storage in self._before}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor) and id(storage := given.untyped_storage()) not in self._seen:
                self._before.append(storage)
                self._seen.add(id(storage))
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) in self._seen:
            return
        self._seen.add(id(storage))
        weakref.finalize(storage, self._gone, id(storage), storage.nbytes()).atexit = False
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _gone(self, name: int, size: int) -> None:
        self._seen.discard(name)
        self.now -= size
