"""Make prompt spans from cuts of a text: named, and without blanks at their ends."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cptlab.records import Span


def spans_of(text: str, cuts: Iterable[tuple[str, int, int]]) -> tuple[Span, ...]:
    """Return a span for each (name, start, end), in order; a cut without a letter or digit, such as quotes, gives none."""
    spans = []
    for name, start, end in cuts:
        inside = text[start:end]
        if re.search(r"\w", inside):
            spans.append(Span(name, start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())))
    return tuple(spans)
