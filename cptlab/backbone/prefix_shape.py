"""The shape of a backbone's key/value cache, and the interface of a prefix that fits into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from cptlab.errors import UserError

# tests/backbone/test_prefix_architectures.py tests these. Any other is checked when it is loaded (exactness.py).
TESTED = frozenset(
    "llama phi starcoder2 codegen gpt_bigcode qwen2 qwen3 mistral gpt2 gpt_neox mixtral qwen2_moe".split()
)
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


def joined_table(key_values: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the table [M, width] of (key, value) of every layer, each [num_kv_heads, M, head_dim]: what `split_table` undoes."""
    layers = torch.stack([torch.stack(both) for both in key_values])
    return layers.permute(3, 0, 1, 2, 4).flatten(1)


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of a model's text part, which is the config itself unless the model reads images or sound, too.

    Raises UserError where that is not one causal language model.
    """
    try:
        part = config.get_text_config(decoder=True)
        sized = all(getattr(part, name, None) for name in ("vocab_size", "hidden_size", "num_hidden_layers"))
    except (RuntimeError, ValueError) as error:  # of transformers: a size that differs by layer, several text parts
        raise UserError(
            f"A {config.model_type} model has no text part of one shape ({_sentence(error)}). {REMEDY}"
        ) from None
    if not sized:
        raise UserError(f"The config of a {config.model_type} model does not describe a language model. {REMEDY}")
    return part


def context_length(config: PreTrainedConfig) -> tuple[int, str]:
    """Return how many positions a model takes, from the config of its text part, and "" or why they are so few.

    With longrope (the Phi-3 family), one row beyond the original length switches the rotary factors of its whole batch,
    but not those of keys that were read before. So the context ends there.
    """
    length = config.max_position_embeddings
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [part for part in rope.values() if isinstance(part, dict)]  # where each kind of layer has its own
    for part in (rope, *kinds):
        original = part.get("original_max_position_embeddings")
        original = original or getattr(config, "original_max_position_embeddings", None)
        if part.get("rope_type") == "longrope" and original and original < length:
            return (
                original,
                f"of its {length} positions only the first {original}, before longrope changes the factors of all rows",
            )
    return length, ""


def prefix_shape(config: PreTrainedConfig) -> PrefixShape:
    """Return the shape of a key/value cache, from the config of a text part. Raises UserError if no prefix fits it."""
    kind = config.model_type
    try:
        heads = getattr(config, "num_attention_heads", None)
        kv_heads: int = (
            1 if getattr(config, "multi_query", False) else getattr(config, "num_key_value_heads", 0) or heads or 0
        )
        head_dim = getattr(config, "head_dim", None)
    except RuntimeError as error:  # of transformers, for what differs by layer, as in Gemma 4
        raise UserError(
            f"A {kind} model has layers of several shapes, so no prefix fits it ({_sentence(error)}). {REMEDY}"
        ) from None
    if not heads or not getattr(config, "max_position_embeddings", None):
        raise UserError(f"A {kind} model has no attention with numbered positions, so no prefix fits it. {REMEDY}")
    if getattr(config, "kv_lora_rank", None):
        raise UserError(f"A {kind} model compresses keys and values together, so no prefix fits it. {REMEDY}")
    layers = set(getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ())
    if foreign := layers - {"full_attention", "sliding_attention", "global"}:
        raise UserError(f"A {kind} model has layers ({', '.join(sorted(foreign))}) that would lose a prefix. {REMEDY}")
    cached = config.num_hidden_layers - (getattr(config, "num_kv_shared_layers", None) or 0)  # the last ones share keys
    return PrefixShape(cached, kv_heads, head_dim or config.hidden_size // heads)


def _sentence(error: Exception) -> str:
    """Return the first sentence of an error's text."""
    return str(error).partition(". ")[0]


def sliding_window(config: PreTrainedConfig) -> tuple[int | None, bool]:
    """Return a text part's sliding window in tokens (or None), and whether some layers slide and others do not."""
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    if not window or layers == {"full_attention"}:
        return None, False
    return window, "full_attention" in layers
