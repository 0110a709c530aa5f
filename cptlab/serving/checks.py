"""Refuse models and settings of vLLM under which requests would lose a prefix, or have it in the wrong place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import PreTrainedConfig

from cptlab.backbone.prefix_shape import prefix_shape, sliding_window, text_config
from cptlab.errors import UserError
from cptlab.serving.served_prefix import ServedPrefix

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig


def check_model(config: PreTrainedConfig, max_model_len: int, prefixes: Sequence[ServedPrefix]) -> None:
    """Raise UserError unless a model with this config keeps these prefixes in contexts of `max_model_len` tokens."""
    part = text_config(config)
    shape = prefix_shape(part)
    window, _ = sliding_window(part)
    if window is not None and window < max_model_len:
        raise UserError(
            f"The model attends to {window} tokens only, so a prefix would leave its sliding window in a context of "
            f"{max_model_len}. Serve contexts of at most {window} tokens: max_model_len={window}."
        )
    for one in prefixes:
        if one.prefix.shape != shape:
            raise UserError(
                f"The prefix {one.name} belongs to another backbone: it has {one.prefix.shape}, while this model has {shape}. "
                "Serve it with the backbone that it was trained on."
            )
        if one.length + 2 > max_model_len:
            raise UserError(
                f"The prefix {one.name} has {one.length} positions, which leaves no room for a prompt and an answer in a context "
                f"of {max_model_len}. Raise max_model_len."
            )


def check_prefixes(vllm_config: VllmConfig, prefixes: Sequence[ServedPrefix]) -> None:
    """Raise UserError where vLLM runs the model in a way that would lose a prefix."""
    model = vllm_config.model_config
    check_model(model.hf_text_config, model.max_model_len, prefixes)
    drafts = vllm_config.speculative_config
    if drafts is not None and drafts.method not in ("ngram", "suffix"):
        raise UserError(
            f"Speculative decoding with method {drafts.method} has a model of its own, which knows no prefix. Use method "
            "ngram, or none."
        )
    if vllm_config.parallel_config.decode_context_parallel_size > 1:
        raise UserError(
            "Context parallelism deals the positions of a prefix out. Set decode_context_parallel_size to 1."
        )


def check_cache(vllm_config: VllmConfig, kv_cache_config: KVCacheConfig) -> int:
    """Return how many positions a block of the cache has. Raises UserError unless all layers keep all positions."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    specs = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    if len(specs) != 1 or type(specs[0]) is not FullAttentionSpec or specs[0].attention_chunk_size is not None:
        kinds = ", ".join(sorted({type(spec).__name__ for spec in specs}))
        raise UserError(
            f"vLLM keeps keys and values of this model in another form than one for every position and layer ({kinds}), "
            "which would lose a prefix. Serve a model with full attention in all layers."
        )
    window = specs[0].sliding_window
    if window is not None and window < vllm_config.model_config.max_model_len:
        raise UserError(f"Layers of this model attend to {window} tokens only. Set max_model_len to at most {window}.")
    return specs[0].block_size
