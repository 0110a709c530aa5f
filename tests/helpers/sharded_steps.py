"""One of two processes that compute a training step on every architecture, with the layers whole and shared out.

python tests/helpers/sharded_steps.py <rank> <file for the two to meet> <file for what was found>
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import ARCHITECTURES, random_prefix, tiny_backbone  # noqa: E402
from torch import distributed  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from training_runs import make_pairs  # noqa: E402

from cptlab.adapters import Prefix  # noqa: E402
from cptlab.backbone import Backbone  # noqa: E402
from cptlab.backbone.gradient_checkpointing import decoder_layers  # noqa: E402
from cptlab.backbone.sequence_attention import why_not_by_sequences  # noqa: E402
from cptlab.backbone.sharding import shard_layers  # noqa: E402
from cptlab.training import CPT, AdapterTraining, StepMethod  # noqa: E402
from cptlab.training.steps.batches import collate  # noqa: E402
from cptlab.training.steps.token_pairs import encode_pair  # noqa: E402


def gradients(backbone: Backbone, prefix: Prefix, rank: int) -> dict[str, torch.Tensor]:
    """Of the prefix, by a step on other pairs in each process; by way of computing it."""
    pairs = [encode_pair(pair, backbone, True) for pair in make_pairs()[3 * rank : 3 * rank + 2]]
    methods = {
        "fast": StepMethod("fast"),
        "by sequences": StepMethod("fast", by_sequences=True),
        "plain": StepMethod("plain"),
        "checkpointed": StepMethod("plain", checkpointing=True),
    }
    if why_not_by_sequences(backbone):
        del methods["by sequences"]
    found = {}
    for name, method in methods.items():
        module = AdapterTraining(backbone, prefix, "comparative", CPT(), method=method)
        loss = module.training_step([collate([pair], backbone.pad_id) for pair in pairs], 0)
        (found[name],) = torch.autograd.grad(loss, [prefix.table])
    return found


if __name__ == "__main__":
    rank, meeting, outcome = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    differences = {}
    for arch in ARCHITECTURES:
        backbone = tiny_backbone(arch)
        prefix = random_prefix(backbone)
        whole = gradients(backbone, prefix, rank)
        shard_layers(backbone, mesh)
        assert all(isinstance(parameter, DTensor) for parameter in decoder_layers(backbone.model).parameters())
        shared = gradients(backbone, prefix, rank)
        differences[arch] = {name: float((shared[name] - whole[name]).norm() / whole[name].norm()) for name in whole}
    outcome.write_text(json.dumps(differences), encoding="utf-8")
    distributed.destroy_process_group()
