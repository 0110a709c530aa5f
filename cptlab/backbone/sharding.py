"""The frozen decoder layers of a backbone, shared out over processes: PyTorch's FSDP2 (`fully_shard`).

A layer is put together right before it runs, forward and backward, and given up right after. So of the layers' weights a
process holds its share, and one or two layers whole. Embeddings, the last norm and the output head stay whole in every
process: they are used at both ends of every pass, often tied to each other, and small beside the layers.

Putting a layer together takes all processes, so all of them must run the same passes in the same order.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from cptlab.backbone.gradient_checkpointing import decoder_layers
from cptlab.backbone.model import Backbone


def shard_layers(backbone: Backbone, mesh: DeviceMesh) -> None:
    """Share out the decoder layers of `backbone` over the processes of the 1-dimensional `mesh`, and move the rest to its
    device. Layer after layer moves, so a backbone on the CPU needs not fit into one GPU. Nothing happens the second time.
    """
    body = backbone.model.base_model
    if not isinstance(body, FSDPModule):
        layers = decoder_layers(backbone.model)
        rest = set(body.parameters()) - set(layers.parameters())
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(body, mesh=mesh, ignored_params=rest)  # holds the layers together: what is fetched ahead, and when
    nn.Module.to(backbone.model, mesh.device_type)
