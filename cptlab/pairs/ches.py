"""CHES, the centred hidden embedding similarity (Razin et al. 2024, arXiv 2410.08847, Definition 2, length-normalised).

    CHES(x, y+, y-) = <h+, h-> - |h+|^2,     h = mean of the head's inputs over the tokens of a completion

The larger it is, the more training on the pair is predicted to lower the likelihood of the better program as well.
"""

from __future__ import annotations

import numpy as np


def ches_scores(embeddings: np.ndarray) -> np.ndarray:
    """Return CHES [n, n] of every pair from mean embeddings [n, E]: row = better program, column = worse one."""
    products = embeddings.astype(np.float64) @ embeddings.astype(np.float64).T
    return products - products.diagonal()[:, None]
