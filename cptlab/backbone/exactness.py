"""Check that an untested architecture runs exactly with a prefix, by running it."""

from __future__ import annotations

import torch

from cptlab.backbone.foreign_errors import raised_outside
from cptlab.backbone.model import Backbone
from cptlab.backbone.prefix_shape import REMEDY, FixedPrefix
from cptlab.errors import UserError


@torch.no_grad()
def check_exact(backbone: Backbone, tolerance: float = 0.05) -> None:
    """Run a few tokens through a model whose architecture is not in `TESTED`. Raises UserError if it is not exact.

    It is exact if a padded row gives the logits of the row alone, decoding step by step gives those of one pass, and
    tokens see the prefix. Logits are compared by the median over positions of the relative L2 distance. The default
    tolerance allows for bfloat16, and for an expert that is chosen differently now and then.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(1000, backbone.vocab_size), (2, 12), generator=generator).to(backbone.device)
    whole, padded = torch.ones_like(ids), torch.ones_like(ids)
    padded[0, :4] = 0
    noise = torch.Generator(backbone.device).manual_seed(0)
    table = torch.randn(3, backbone.shape.width, generator=noise, device=backbone.device)
    prefix = FixedPrefix(table, backbone.shape)
    try:
        alone = backbone.logits(ids[:1, 4:], whole[:1, 4:], prefix)[0]
        batch = backbone.logits(ids, padded, prefix)
        _, state = backbone.prefill(ids[:, :8], padded[:, :8], prefix)
        steps = torch.stack([backbone.step(ids[:, i], state) for i in range(8, 12)], dim=1)
        plain = backbone.logits(ids, whole)
    except Exception as error:  # an unknown architecture may raise anything for masks and caches
        if not raised_outside(error):
            raise
        raise UserError(
            f"A {backbone.config.model_type} model cannot run with a prefix ({type(error).__name__}: {error}). {REMEDY}"
        ) from error

    def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
        distance = (a - b).float().norm(dim=-1) / b.float().norm(dim=-1)
        return not bool(distance.median() <= tolerance)  # NaN differs

    faults = {
        "gives other logits in a padded batch": differ(batch[0, 4:], alone),
        "gives other logits when decoding": differ(steps, batch[:, 8:]),
        "does not see the prefix": not bool((batch[1] - plain[1]).abs().max() > 0),
    }
    if any(faults.values()):
        wrong = " and ".join(fault for fault, found in faults.items() if found)
        raise UserError(f"A {backbone.config.model_type} model {wrong}, so results would be wrong. {REMEDY}")
