"""Lexical similarity of programs: the cosine of their word counts (CPT IV-D-2).

As in the paper, scikit-learn's `CountVectorizer` counts the words: lower-cased runs of two or more letters, digits or
underscores. Order, punctuation, layout and one-letter names do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer


def cosine_similarities(programs: Sequence[str]) -> np.ndarray:
    """Return the cosines of all pairs, [n, n] float64 in [0, 1], symmetric, with 1 on the diagonal.

    A program without a single word has no direction: its cosine with every program, itself included, is 0.

    Counts are whole numbers, so dot products are exact. Each cosine is `dot / sqrt(norm2 * norm2)`, rounded as for the
    two programs alone, so neither the other programs nor the order of sums matters.
    """
    distinct = {program: i for i, program in enumerate(dict.fromkeys(programs))}
    cosines = _distinct_cosines(list(distinct))
    rows = [distinct[program] for program in programs]
    return cosines[np.ix_(rows, rows)]


def _distinct_cosines(programs: list[str]) -> np.ndarray:
    try:
        vectorizer: Any = CountVectorizer(dtype=np.float64)  # pyright: ignore[reportArgumentType]
        counts = vectorizer.fit_transform(programs).toarray()
    except ValueError:  # its "empty vocabulary": no program holds a word, or there is no program
        return np.zeros((len(programs), len(programs)))
    dots = counts @ counts.T
    lengths = np.sqrt(np.outer(dots.diagonal(), dots.diagonal()))
    return np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
