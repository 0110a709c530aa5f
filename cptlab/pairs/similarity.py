"""Lexical similarity of programs: the cosine of their word counts (CPT IV-D-2).

Words are those of scikit-learn's `CountVectorizer` as it comes, which is what the paper uses: lower-cased runs of two
or more letters, digits or underscores. Order, punctuation, layout and one-letter names do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer


def cosine_similarities(programs: Sequence[str]) -> np.ndarray:
    """All pairs' cosines, [n, n] float64 in [0, 1], symmetric; 1 on the diagonal.

    A program without a single word has no direction: its cosine with every program, itself included, is 0.

    Counts are whole numbers, so that dot products are exact and each cosine is `dot / sqrt(norm2 * norm2)` rounded
    like the same expression for the two programs alone: neither the other programs nor the order of sums matters.
    """
    distinct = {program: i for i, program in enumerate(dict.fromkeys(programs))}
    cosines = _distinct_cosines(list(distinct))
    rows = [distinct[program] for program in programs]
    return cosines[np.ix_(rows, rows)]


def _distinct_cosines(programs: list[str]) -> np.ndarray:
    try:
        counts = CountVectorizer(dtype=np.float64).fit_transform(programs).toarray()
    except ValueError:  # its "empty vocabulary": no program holds a word, or there is no program
        return np.zeros((len(programs), len(programs)))
    dots = counts @ counts.T
    lengths = np.sqrt(np.outer(dots.diagonal(), dots.diagonal()))
    return np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
