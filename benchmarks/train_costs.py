"""The operations of a step of comparative prefix-tuning by formula: what each exact trick should save, for train_step.py.

A pair is an instruction of P tokens, a beginning of C tokens that both programs have in common, and the rest R of each
program, of which D tokens are masked (they differ; the ranking and LM losses read them, the KL reads the others). With
N parameters between embeddings and head, E hidden numbers and a vocabulary of V, a pass over one token costs

    backbone 2N,   head 2EV,   attention 4 · heads · head_dim · keys per layer

operations, a multiplication and an addition counting two. The weights are frozen, so that a backward pass makes no
weight gradients and costs a matrix product what the forward did (d/dx alone); attention's has two factors that vary, and
costs twice its forward. So with T = P+C+R

    naive = 6T (2N + 2EV) + attention               two programs x (policy forward, its backward, reference forward)
    fast  = 2·2N (P+C+2R) + 2EV [4D + 3 (C + 2(R-D))] + attention

Attention is what is computed, not what is looked at: a dense mask makes a kernel compute all queries x keys, so a row
with a prefix costs T (M+T) and a packed pair S (M+S), S = P+C+2R; only a row without mask (the reference alone, unpadded)
runs a causal kernel that skips the upper half. Left out: norms, activations, softmax, the loss itself, the recomputation
of gradient checkpointing and of fused attention, and that no gradient passes through the first layer's projections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from cptlab.training.steps.token_pairs import Lengths

POLICY_PASSES = 2  # forward, and backward to the inputs
POLICY_ATTENTION = 3  # forward, and twice that backward


@dataclass(frozen=True)
class ModelSize:
    """What a pass over a token costs: `parameters` N without embeddings and head (of experts: those that a token
    meets), `hidden` E, `vocabulary` V, and `layers` of attention with `heads` query heads of `head_dim`."""

    parameters: int
    hidden: int
    vocabulary: int
    layers: int
    heads: int
    head_dim: int

    @classmethod
    def of(cls, model: nn.Module) -> ModelSize:
        """Measure a transformers model, on any device (meta too). A quantized one has packed tensors: take its config on
        the meta device instead."""
        config, head = model.config, model.get_output_embeddings()
        embeddings = {id(p) for module in model.modules() if _embeds(module) for p in module.parameters(recurse=False)}
        embeddings |= {id(p) for p in head.parameters()}
        experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
        share = config.num_experts_per_tok / experts if experts else 1.0
        count = 0.0
        for name, parameter in model.named_parameters():
            if id(parameter) not in embeddings:
                count += parameter.numel() * (share if ".experts." in name else 1.0)
        heads = config.num_attention_heads
        return cls(
            parameters=round(count), hidden=head.weight.shape[1], vocabulary=head.weight.shape[0],
            layers=config.num_hidden_layers, heads=heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        )  # fmt: skip

    def attention(self, queries: int, keys: int) -> int:
        """One forward of all layers, every query with every key."""
        return 4 * queries * keys * self.heads * self.head_dim * self.layers

    def causal_attention(self, tokens: int) -> int:
        """One forward of all layers by a kernel that skips the later keys."""
        return 2 * tokens * (tokens + 1) * self.heads * self.head_dim * self.layers


@dataclass(frozen=True)
class Flops:
    """Operations by what causes them."""

    backbone: int
    head: int
    attention: int

    @property
    def total(self) -> int:
        return self.backbone + self.head + self.attention


def step_flops(
    size: ModelSize, lengths: Lengths, prefix: int, *, cached: bool = False, shared: bool = False, needed: bool = False
) -> Flops:
    """A pair's step with any of the exact tricks; none is the naive step, all are the fast one. `prefix` is M.

    - `cached`: the reference's final states at code tokens are read, so only the head is applied to them
    - `shared`: instruction and common code are computed once per pair, in a packed row with a tree mask
    - `needed`: the head is applied to the policy's code tokens alone, and to the reference's unmasked ones
    """
    rows = (lengths.packed,) if shared else lengths.rows
    tokens = sum(rows)
    backbone = 2 * size.parameters * tokens * (POLICY_PASSES + (not cached))

    code = lengths.packed - lengths.instruction if shared else sum(lengths.code)
    masked = lengths.masked_a + lengths.masked_b
    if needed:
        positions = POLICY_PASSES * code + (code - masked)
    else:
        positions = POLICY_PASSES * tokens + (code if cached else tokens)
    head = 2 * size.hidden * size.vocabulary * positions

    attention = POLICY_ATTENTION * sum(size.attention(row, prefix + row) for row in rows)
    if not cached:  # a packed row needs its tree mask also without prefix
        attention += size.attention(tokens, tokens) if shared else sum(size.causal_attention(row) for row in rows)
    return Flops(backbone, head, attention)


def sequences_attention(size: ModelSize, lengths: Lengths, prefix: int) -> int:
    """One forward of attention by sequences: the trunk with itself, each branch with the trunk and itself. What a causal
    kernel skips of it counts."""
    trunk = lengths.instruction + lengths.common
    found = size.attention(trunk, prefix + trunk)
    return found + sum(size.attention(rest, prefix + trunk + rest) for rest in (lengths.rest_a, lengths.rest_b))


def naive_flops(size: ModelSize, lengths: Lengths, prefix: int) -> Flops:
    """Four forwards and two backwards, every program by itself, the head at every position."""
    return step_flops(size, lengths, prefix)


def plain_flops(size: ModelSize, lengths: Lengths, prefix: int) -> Flops:
    """Our readable step: as the naive one, but both programs are one batch, padded to the longer of them.

    Programs of unequal length make the mask dense in the reference's forward as well.
    """
    row = max(lengths.rows)
    backbone, head = (3 * 2 * row * cost for cost in (2 * size.parameters, 2 * size.hidden * size.vocabulary))
    equal = lengths.rest_a == lengths.rest_b
    reference = size.causal_attention(row) if equal else size.attention(row, row)
    return Flops(backbone, head, 2 * (POLICY_ATTENTION * size.attention(row, prefix + row) + reference))


# The rows of train_step.py: each trick alone, and all of them.
VARIANTS: dict[str, dict[str, bool]] = {
    "naive": {},
    "reference cached": {"cached": True},
    "instruction and common code shared": {"shared": True},
    "head where needed": {"needed": True},
    "all": {"cached": True, "shared": True, "needed": True},
}


def _embeds(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Embedding")
