"""How many tokens are cached at a time, where nobody says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cptlab.backbone import Backbone

ON_CPU = 1 << 16  # for Code Llama 7B in half precision that is 32 GB
SHARE = 0.8  # of the free memory; the rest is for activations, and for what is fragmented
COPIES = 1.25  # keys and values of the running programs, and of those that come in
PER_LOGIT = 48  # bytes: scores, sorted scores with their places, and sums in float64


def default_token_budget(backbone: Backbone, costs: Sequence[int], free: int | None = None) -> int:
    """Return the tokens that fit into `free` bytes (default: what is free on the backbone's GPU), ON_CPU on a CPU.

    `costs` are the cached tokens of one program of each prompt. A program also takes the logits of its next token.
    """
    if free is None:
        if backbone.device.type != "cuda":
            return ON_CPU
        unused = torch.cuda.memory_reserved(backbone.device) - torch.cuda.memory_allocated(backbone.device)
        free = torch.cuda.mem_get_info(backbone.device)[0] + unused
    dearest = max(costs, default=1)
    keys_and_values = COPIES * backbone.shape.width * backbone.dtype.itemsize
    per_token = keys_and_values + PER_LOGIT * backbone.vocab_size / dearest
    return max(1, int(SHARE * free / per_token))
