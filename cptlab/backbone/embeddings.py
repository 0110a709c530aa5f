"""Mean hidden embeddings of completions: what the head reads of them, averaged over their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cptlab.backbone.model import Backbone


@torch.no_grad()
def mean_embeddings(
    backbone: Backbone, prompt: str, completions: Sequence[str], token_budget: int = 16384
) -> np.ndarray:
    """Return [n, E] float32: for each completion the mean of the head's inputs at the places that predict its tokens.

    A completion without tokens has the embedding at the place of its first. `token_budget` bounds the padded tokens that
    are computed at once.
    """
    opening = backbone.encode_prompt(prompt)
    rows = [opening + list(backbone.encode_completion(text)) for text in completions]
    found = np.zeros((len(rows), backbone.hidden_size), dtype=np.float32)
    todo = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    while todo:
        width = len(rows[todo[0]])
        some, todo = todo[: max(1, token_budget // width)], todo[max(1, token_budget // width) :]
        ids = torch.full((len(some), width), backbone.pad_id)
        segments = torch.full((len(some), width), -1)
        for row, place in enumerate(some):
            ids[row, : len(rows[place])] = torch.tensor(rows[place])
            segments[row, : len(rows[place])] = 0
        positions = torch.arange(width).expand(len(some), -1)
        device = backbone.device
        states = backbone.hidden_states(ids.to(device), positions.to(device), segments.to(device)).float().cpu()
        for row, place in enumerate(some):
            first = len(opening) - 1
            found[place] = states[row, first : max(len(rows[place]) - 1, first + 1)].mean(0).numpy()
    return found
