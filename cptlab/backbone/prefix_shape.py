"""The shape of a backbone's key/value cache, and the interface of a prefix that fits into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedConfig

from cptlab.errors import UserError

# tests/backbone/test_prefix_architectures.py tests these. Any other is checked when it is loaded (exactness.py).
TESTED = frozenset("llama phi starcoder2 codegen gpt_bigcode qwen2 mistral gpt2 gpt_neox mixtral qwen2_moe".split())
REMEDY = f"Use a backbone of one of these architectures: {', '.join(sorted(TESTED))}."


@dataclass(frozen=True)
class PrefixShape:
    """The shape of a key/value cache. Each layer holds keys and values of `[num_kv_heads, positions, head_dim]`."""

    num_layers: int
    num_kv_heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """The number of values per prefix position: 2·L·num_kv_heads·head_dim."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    def __str__(self) -> str:
        return f"{self.num_layers} layers x {self.num_kv_heads} key/value heads x {self.head_dim}"


class KeyValuePrefix(Protocol):
    """Keys and values of `length` positions before every text. `cptlab.adapters.Prefix` is one."""

    @property
    def shape(self) -> PrefixShape: ...

    @property
    def length(self) -> int: ...

    def key_values(self) -> list[tuple[Tensor, Tensor]]:
        """Return (key, value) of every layer, each [num_kv_heads, M, head_dim]."""
        ...


@dataclass(frozen=True)
class FixedPrefix:
    """A prefix that is a `table` [M, shape.width]."""

    table: Tensor
    shape: PrefixShape

    @property
    def length(self) -> int:
        return len(self.table)

    def key_values(self) -> list[tuple[Tensor, Tensor]]:
        return split_table(self.table, self.shape)


def split_table(table: Tensor, shape: PrefixShape) -> list[tuple[Tensor, Tensor]]:
    """Return (key, value) of every layer, each [num_kv_heads, M, head_dim], of a table [M, width].

    Column `((2·layer + kv)·num_kv_heads + head)·head_dim + d` is dimension d of that head's key (kv = 0) or value (kv = 1).
    """
    split = table.view(len(table), shape.num_layers, 2, shape.num_kv_heads, shape.head_dim).permute(1, 2, 3, 0, 4)
    return [(layer[0], layer[1]) for layer in split]


def prefix_shape(config: PreTrainedConfig) -> PrefixShape:
    """Return the shape of a model's key/value cache, from its config. Raises UserError if no prefix fits it."""
    kind = config.model_type
    heads = getattr(config, "num_attention_heads", None)
    if not heads or not getattr(config, "max_position_embeddings", None):
        raise UserError(f"A {kind} model has no attention with numbered positions, so no prefix fits it. {REMEDY}")
    if getattr(config, "kv_lora_rank", None):
        raise UserError(f"A {kind} model compresses keys and values together, so no prefix fits it. {REMEDY}")
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
    """Return the sliding window in tokens (or None), and whether some layers slide and others do not."""
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    if not window or layers == {"full_attention"}:
        return None, False
    return window, "full_attention" in layers
