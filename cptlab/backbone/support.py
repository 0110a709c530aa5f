"""Which architectures can carry a prefix exactly, and the shape of their key/value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedConfig

from cptlab.backbone.prefix import Prefix, PrefixShape
from cptlab.errors import UserError

if TYPE_CHECKING:
    from cptlab.backbone.model import Backbone

# Tested one by one in tests/test_prefix_architectures.py; any other is checked when it is loaded.
TESTED = frozenset("llama phi starcoder2 codegen gpt_bigcode qwen2 mistral gpt2 gpt_neox mixtral qwen2_moe".split())
REMEDY = f"Use a backbone of one of these architectures: {', '.join(sorted(TESTED))}."


def prefix_shape(config: PreTrainedConfig) -> PrefixShape:
    """The shape of a model's key/value cache, from its config. Raises UserError where it has none that fits."""
    kind = config.model_type
    heads = getattr(config, "num_attention_heads", None)
    if not heads or not getattr(config, "max_position_embeddings", None):
        raise UserError(f"A {kind} model has no attention with counted positions that a prefix fits. {REMEDY}")
    if getattr(config, "kv_lora_rank", None):
        raise UserError(f"A {kind} model compresses keys and values together, which no prefix fits. {REMEDY}")
    layers = set(getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ())
    if foreign := layers - {"full_attention", "sliding_attention", "global"}:
        raise UserError(f"A {kind} model has layers ({', '.join(sorted(foreign))}) that would lose a prefix. {REMEDY}")
    if getattr(config, "multi_query", False):
        kv_heads = 1
    else:
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return PrefixShape(config.num_hidden_layers, kv_heads, head_dim)


def sliding_window(config: PreTrainedConfig) -> tuple[int | None, bool]:
    """(window in tokens or None, whether some layers slide and others do not)."""
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    if not window or layers == {"full_attention"}:
        return None, False
    return window, "full_attention" in layers


@torch.no_grad()
def check_exact(backbone: Backbone, tolerance: float = 0.05) -> None:
    """Run a few tokens through an architecture that is not in `TESTED`: UserError where it is not exact.

    Exact means: a padded row gives the logits of the row alone, decoding step by step gives those of one pass, and the
    prefix is seen. Compared by the median over positions of the relative L2 distance, loosely enough for bfloat16 and
    for an expert that is chosen differently now and then.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(1000, backbone.vocab_size), (2, 12), generator=generator).to(backbone.device)
    whole, padded = torch.ones_like(ids), torch.ones_like(ids)
    padded[0, :4] = 0
    prefix = Prefix(backbone.shape, length=3).to(backbone.device)
    prefix.table.normal_(generator=torch.Generator(backbone.device).manual_seed(0))
    try:
        alone = backbone.logits(ids[:1, 4:], whole[:1, 4:], prefix)[0]
        batch = backbone.logits(ids, padded, prefix)
        _, state = backbone.prefill(ids[:, :8], padded[:, :8], prefix)
        steps = torch.stack([backbone.step(ids[:, i], state) for i in range(8, 12)], dim=1)
        plain = backbone.logits(ids, whole)
    except Exception as error:  # whatever an unknown architecture does with masks and caches that it was not made for
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
