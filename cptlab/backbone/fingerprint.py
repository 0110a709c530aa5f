"""What tells one model from another: the same digest for the same weights, wherever the files are."""

from __future__ import annotations

import hashlib
import json

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SAMPLED = 1 << 16  # numbers of each weight tensor that are read


def model_fingerprint(model: PreTrainedModel, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return SHA-256, in hex, over config, vocabulary and weights.

    At most 65,536 numbers of each weight tensor are read, evenly spaced: enough to tell apart models that were trained
    differently. The dtype counts, the place of the files does not.
    """
    digest = hashlib.sha256()
    told = {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        sample = tensor.flatten()[:: max(1, tensor.numel() // SAMPLED)].contiguous().cpu()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
