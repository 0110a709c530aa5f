"""Tiny random models of every supported architecture, a tokenizer made of bytes, and inputs for them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from cptlab.adapters import Prefix
from cptlab.backbone import Backbone

SPECIAL = ("<|endoftext|>", "<pad>", "<unk>")
VOCAB = 256 + len(SPECIAL)

_LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
_GPT_LIKE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}

# name -> (transformers model type, config values)
ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "llama": ("llama", _LLAMA_LIKE | {"num_key_value_heads": 4}),
    "llama_gqa": ("llama", _LLAMA_LIKE | {"num_key_value_heads": 2}),
    "phi": ("phi", _LLAMA_LIKE),
    "starcoder2": ("starcoder2", _LLAMA_LIKE | {"num_key_value_heads": 2, "sliding_window": 128}),
    "codegen": ("codegen", _GPT_LIKE | {"n_ctx": 256, "rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", _GPT_LIKE | {"multi_query": True}),
    "qwen2": ("qwen2", _LLAMA_LIKE | {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", _LLAMA_LIKE | {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral": ("mistral", _LLAMA_LIKE | {"num_key_value_heads": 2, "sliding_window": 128}),
    "gpt2": ("gpt2", _GPT_LIKE),
    "gpt_neox": ("gpt_neox", _LLAMA_LIKE),
    "mixtral": (
        "mixtral",
        _LLAMA_LIKE | {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen2_moe": (
        "qwen2_moe",
        _LLAMA_LIKE
        | {
            "num_key_value_heads": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
}

# Config values that make the layers of an architecture slide; qwen's have one layer of each kind.
MIXED = {"sliding_window": 8, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}
SLIDING = {
    "mistral": {"sliding_window": 8},
    "starcoder2": {"sliding_window": 8},
    "qwen2": MIXED,
    "mixtral": {"sliding_window": 8},
    "qwen2_moe": MIXED,
}

M = 5  # length of the random prefixes
CLOSE = {"atol": 5e-5, "rtol": 1e-4}  # logits are around 5; float32


def tiny_tokenizer(special: tuple[str, ...] = SPECIAL) -> PreTrainedTokenizerFast:
    """One token per byte, no special tokens added, `<|endoftext|>` to end, `<pad>` and `<unk>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*alphabet, *special))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[1], unk_token=SPECIAL[2]
    )


def tiny_model(arch: str, seed: int = 0, **overrides):
    """A random model of `ARCHITECTURES[arch]`; `overrides` change its config. About 30,000 parameters."""
    model_type, values = ARCHITECTURES[arch]
    tokenizer_ids = {"eos_token_id": VOCAB - 3, "bos_token_id": VOCAB - 3, "pad_token_id": VOCAB - 2}
    config = AutoConfig.for_model(model_type, **({"vocab_size": VOCAB} | tokenizer_ids | values | overrides))
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # larger than the usual initialisation, so that logits differ clearly between inputs
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                scale = 1.5 / math.sqrt(parameter.shape[-1])
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_backbone(arch: str, seed: int = 0, **overrides) -> Backbone:
    """`tiny_model` with `tiny_tokenizer`, frozen. Equal arguments give equal weights."""
    return Backbone(tiny_model(arch, seed, **overrides), tiny_tokenizer(), f"tiny-{arch}")


def random_prefix(backbone: Backbone, rank: int | None = None, seed: int = 1) -> Prefix:
    """A prefix of M positions as large as trained ones, so that its effect is clear."""
    prefix = Prefix(backbone.shape, length=M, rank=rank, seed=seed)
    with torch.no_grad():
        (prefix.table if rank is None else prefix.transform).mul_(50)
    return prefix


def tokens(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    """One row of random text tokens for each length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 250, (length,), generator=generator) for length in lengths]


def pad(rows: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of the rows as one batch, padded on 'left' or 'right'."""
    width = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), width), 257), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask


def alone(backbone: Backbone, row: torch.Tensor, prefix: Prefix | None) -> torch.Tensor:
    """Logits [T, V] of one row without padding."""
    return backbone.logits(row[None], torch.ones(1, len(row), dtype=torch.long), prefix)[0]


def double(arch: str, eos: Iterable[int] = (), **overrides) -> Backbone:
    """A tiny backbone in float64, so that batching cannot change a token; it ends only at `eos`."""
    backbone = tiny_backbone(arch, **overrides)
    backbone.model.double()
    if arch in ("mixtral", "qwen2_moe"):
        backbone.model.set_experts_implementation("eager")  # the others know no float64
    backbone.eos_ids = frozenset(eos)
    return backbone
