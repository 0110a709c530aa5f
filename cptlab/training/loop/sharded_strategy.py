"""Training on a backbone whose decoder layers are shared out over the processes: `strategy: sharded_layers` of a trainer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.strategies.parallel import ParallelStrategy
from torch import Tensor, distributed

from cptlab.adapters.base import Adapter
from cptlab.backbone import Backbone
from cptlab.backbone.quantization import QuantizedLinear
from cptlab.errors import UserError

SHARDED_LAYERS = "sharded_layers"  # its name in `strategy` of a trainer


class ShardedLayers(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy for modules whose own parameters, an adapter's, are whole in every process.

    The module shards what it runs in `configure_model`, over the mesh dimension `data_parallel`, which has all processes.
    Gradients of the adapter are averaged over the processes, as DDP does. Checkpoints are those of one process: the first
    process writes a file, and all read it.
    """

    restore_checkpoint_after_setup = False  # pyright: ignore[reportAssignmentType]  # properties of the parent
    lightning_restore_optimizer = True  # pyright: ignore[reportAssignmentType]
    lightning_module_state_dict = ParallelStrategy.lightning_module_state_dict
    load_model_state_dict = ParallelStrategy.load_model_state_dict
    optimizer_state = ParallelStrategy.optimizer_state
    load_optimizer_state_dict = ParallelStrategy.load_optimizer_state_dict
    save_checkpoint = ParallelStrategy.save_checkpoint
    load_checkpoint = ParallelStrategy.load_checkpoint

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients over the processes, in one exchange for each dtype."""
        assert self.lightning_module is not None
        found = [parameter.grad for parameter in self.lightning_module.parameters() if parameter.grad is not None]
        for dtype in {gradient.dtype: None for gradient in found}:
            own = [gradient for gradient in found if gradient.dtype == dtype]
            together = torch.cat([gradient.flatten() for gradient in own]) / self.world_size
            distributed.all_reduce(together)
            for gradient, mean in zip(own, together.split([g.numel() for g in own]), strict=True):
                gradient.copy_(mean.view_as(gradient))


StrategyRegistry.register(SHARDED_LAYERS, ShardedLayers, "Decoder layers shared out over the processes.", override=True)


def check_sharded(backbone: Backbone, adapters: Sequence[Adapter], compiled: bool) -> None:
    """Raise UserError where the layers of `backbone` cannot be shared out, as they are, for these adapters."""
    for adapter in adapters:
        if not adapter.fast_step:
            raise UserError(
                f"Layers that {adapter.kind} changes are not shared out over processes. Use adapter=prefix, or trainer=ddp."
            )
    if any(isinstance(module, QuantizedLinear) for module in backbone.model.modules()):
        raise UserError(
            "Layers of 8 or 4 bits are not shared out over processes. Set backbone.quantization=null, or trainer=ddp, "
            "where every process holds them whole."
        )
    if compiled:
        raise UserError("Layers that are shared out over processes are not compiled. Set compute.compile=false.")
