"""Attention over many sequences in one row of tokens, without a mask: what the fast training step runs on a GPU.

A row holds the tokens of several sequences, one after the other. Each sequence sees keys of its own choice, which end with
its own tokens: of a pair that is packed, the trunk sees the prefix and itself, and each branch sees the prefix, the trunk and
itself. So a sequence has more keys than queries, and is causal once both are aligned at their ends. Variable-length
attention computes just that (Dao, FlashAttention-2, arXiv 2307.08691), for grouped heads without copying keys. The keys of
all sequences are gathered first: the kernel's backward pass ignores the gradient of the log-sum-exp, so the results of trunk
and branch could not be merged afterwards.

The attention is registered with transformers, under `NAME`, and used within `by_sequences` alone.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from cptlab.backbone.own_attention import asks_for_more, attending
from cptlab.backbone.prefix_shape import KeyValuePrefix, sliding_window

if TYPE_CHECKING:
    from cptlab.backbone.model import Backbone

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None

KERNEL_OPTIONS = frozenset(inspect.signature(varlen_attn).parameters if varlen_attn else ())  # versions differ in them
NAME = "cptlab_sequences"
HALF = (torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 256  # of the kernel, which also wants a multiple of 8


@dataclass(frozen=True)
class Sequences:
    """N sequences in a row of T tokens, each after the other, with K keys in all.

    Sequence n has the queries `starts[n]` to `starts[n + 1]` of the row, and the keys `keys[key_starts[n]:key_starts[n + 1]]`,
    which are columns of the row [K]; `starts` and `key_starts` are int32 [N + 1]. The last of its keys belong to its own
    tokens, so it has at least as many keys as queries. `longest` bounds both. On the host, `lengths` are the (queries, keys)
    of each without the `prefix` positions that come before its keys.
    """

    keys: Tensor
    starts: Tensor
    key_starts: Tensor
    lengths: tuple[tuple[int, int], ...]
    longest: tuple[int, int]
    prefix: int = 0

    def behind(self, length: int) -> Sequences:
        """The same with the keys of a prefix of `length` positions before the row, which every sequence sees.

        Computed on the device, without waiting for it.
        """
        if not length:
            return self
        device, count = self.keys.device, len(self.starts) - 1
        number = torch.arange(count + 1, device=device)
        key_starts = self.key_starts + (number * length).int()
        place = torch.arange(len(self.keys), device=device)
        owner = torch.bucketize(place, self.key_starts[1:], right=True)
        positions = torch.arange(length, device=device)
        before = (key_starts[:-1, None] + positions).flatten()
        keys = self.keys.new_zeros(len(self.keys) + count * length)
        keys = keys.index_copy(0, place + (owner + 1) * length, self.keys + length)
        keys = keys.index_copy(0, before, positions.expand(count, -1).flatten())
        return Sequences(
            keys, self.starts, key_starts, self.lengths, (self.longest[0], self.longest[1] + length), length
        )


def attend(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None = None) -> Tensor:
    """Return the attention [T, H, D] of `query` [T, H, D] over gathered keys and values [K, G, D]; G divides H.

    On a GPU by its kernel. On a CPU sequence by sequence, or with one dense mask in a graph that torch compiles, which has
    to be the same for all lengths: both are what the kernel is tested against.
    """
    if query.is_cuda and query.dtype in HALF:
        return _by_kernel(query, key, value, sequences, scale)
    return (_with_mask if torch.compiler.is_compiling() else _one_by_one)(query, key, value, sequences, scale)


def states_of_sequences(
    backbone: Backbone, input_ids: Tensor, positions: Tensor, sequences: Sequences, prefix: KeyValuePrefix | None = None
) -> Tensor:
    """Return the input of the head, [1, T, E], for one row [1, T], within `by_sequences` of the backbone's model.

    `positions` [1, T] are those of the tokens without a prefix, which all sequences see. They must fit into the context.
    Gradients flow to the prefix. The host never waits for the device.
    """
    assert backbone.config._attn_implementation == NAME, "any other attention would take no notice of the sequences"
    cache, length = backbone.constant_cache(prefix, 1)
    found = backbone.model.base_model(
        input_ids=input_ids,
        position_ids=positions + length,
        past_key_values=cache,
        use_cache=cache is not None,
        sequences=sequences.behind(length),
    )
    return found.last_hidden_state


def why_not_by_sequences(backbone: Backbone) -> str | None:
    """Return why a backbone's attention cannot run by sequences, where it is known without running it; else None."""
    config, kind = backbone.config, f"a {backbone.config.model_type} model"
    if sliding_window(config)[0] is not None:
        return f"{kind} attends in a sliding window, which a prefix would leave"
    if not getattr(type(backbone.model), "_supports_attention_backend", False):
        return f"transformers has no choice of attention for {kind}"
    return None


def why_no_kernel(backbone: Backbone, device: torch.device) -> str | None:
    """Return why the variable-length kernel does not run on this device, in the backbone's precision; None where it does."""
    if device.type != "cuda":
        return f"there is no kernel for it on a {device.type} device"
    if varlen_attn is None:
        return f"torch {torch.__version__} has no variable-length attention"
    if backbone.dtype not in HALF:
        return f"its kernel takes bfloat16 and float16, not {str(backbone.dtype).removeprefix('torch.')}"
    if backbone.shape.head_dim % 8 or backbone.shape.head_dim > MAX_HEAD_DIM:
        return f"its kernel takes heads of a multiple of 8 up to {MAX_HEAD_DIM} numbers, not {backbone.shape.head_dim}"
    return None


def by_sequences(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within it, the attention of `model` is the one of this module. Layers that are computed again need it, too."""
    return attending(model, NAME)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sequences: Sequences | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: `query` [1, H, T, D], keys and values [1, G, M + T, D]. Returns [1, T, H, D]."""
    if sequences is None or asks_for_more(options):
        raise NotImplementedError(f"{type(module).__name__} asks for an attention that is not by sequences alone")
    keys, values = (tensor[0].transpose(0, 1).index_select(0, sequences.keys) for tensor in (key, value))
    return attend(query[0].transpose(0, 1), keys, values, sequences, scaling)[None], None


AttentionInterface.register(NAME, _attention)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None) -> Tensor:
    assert varlen_attn is not None
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in KERNEL_OPTIONS else {"is_causal": True}
    if "enable_gqa" in KERNEL_OPTIONS:
        options["enable_gqa"] = True
    if "scale" in KERNEL_OPTIONS:
        options["scale"] = scale
    elif scale is not None:  # that version divides by the root of the head's size in any case
        query = query * (scale * query.shape[-1] ** 0.5)
    found = varlen_attn(query, key, value, sequences.starts, sequences.key_starts, *sequences.longest, **options)
    return cast(Tensor, found)  # more comes back only where it is asked for


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None) -> Tensor:
    queries, counts = zip(*((one, count + sequences.prefix) for one, count in sequences.lengths))
    parts = zip(query.split(queries), key.split(counts), value.split(counts))
    found = []
    for one, keys, values in parts:
        visible = torch.ones(len(one), len(keys), dtype=torch.bool, device=query.device)
        found.append(_dense(one, keys, values, visible.tril_(len(keys) - len(one)), scale))
    return torch.cat(found)


def _with_mask(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None) -> Tensor:
    def placed(starts: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The sequence of each place, and how many places of it follow."""
        place = torch.arange(count, device=starts.device)
        owner = torch.bucketize(place, starts[1:], right=True)
        return owner[:, None], (starts[owner + 1] - place)[:, None]

    (own, left), (owners, follow) = placed(sequences.starts, len(query)), placed(sequences.key_starts, len(key))
    return _dense(query, key, value, (own == owners.T) & (follow.T >= left), scale)


def _dense(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float | None) -> Tensor:
    """Attention with a mask [T, K]. The heads that share a key are further rows of queries, so that nothing is copied."""
    count, heads, size = query.shape
    group = heads // key.shape[1]
    folded = query.view(count, -1, group, size).permute(1, 2, 0, 3).reshape(1, -1, group * count, size)
    keys, values = (tensor.transpose(0, 1)[None] for tensor in (key, value))
    mask = visible.expand(group, -1, -1).reshape(group * count, -1)
    found = functional.scaled_dot_product_attention(folded, keys, values, mask, scale=scale)
    return found.view(-1, group, count, found.shape[-1]).permute(2, 0, 1, 3).reshape(count, heads, -1)
