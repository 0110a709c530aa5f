"""Edits of a program's text, and the masks of the tokens that they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cptlab.pairs.masks import Mask


@dataclass(frozen=True, order=True)
class Edit:
    """`text` in the place of the characters from `start` to before `end`."""

    start: int
    end: int
    text: str


def apply_edits(program: str, edits: Sequence[Edit]) -> str:
    """Return the edited program. Edits are given by places in `program`, in any order; none overlaps another."""
    parts, last = [], 0
    for edit in sorted(edits):
        assert edit.start >= last, "edits overlap"
        parts += [program[last : edit.start], edit.text]
        last = edit.end
    return "".join([*parts, program[last:]])


def edit_masks(
    before: Sequence[int], after: Sequence[int], edits: Sequence[Edit], decode: Callable[[list[int]], str]
) -> tuple[Mask, Mask]:
    """Return the masks of the tokens before and after the edits: 0 on tokens that the edits leave as they are.

    A token is left as it is if it holds no edited character, and a token of the edited program begins and ends at the same
    characters of the text. Without the masked tokens, both programs have the same tokens.
    """
    spans_before, spans_after = (_spans(tokens, decode) for tokens in (before, after))
    moved, shift, last = {}, 0, 0  # places between characters outside the edits, and where they are afterwards
    kept = []
    for edit in [*sorted(edits), Edit(spans_before[-1][1] if spans_before else 0, -1, "")]:
        kept.append((last, edit.start, shift))
        last, shift = edit.end, shift + len(edit.text) - (edit.end - edit.start)
    for start, end in spans_before:
        piece = next((shift for first, past, shift in kept if first <= start and end <= past), None)
        if piece is not None:
            moved[start, end] = (start + piece, end + piece)
    there = set(spans_after)
    same = {span: place for span, place in moved.items() if place in there}
    left = set(same.values())
    return tuple(int(span not in same) for span in spans_before), tuple(int(span not in left) for span in spans_after)


def _spans(tokens: Sequence[int], decode: Callable[[list[int]], str]) -> list[tuple[int, int]]:
    """Return where each token begins and ends in the text of them all, in characters."""
    ends = [len(decode(list(tokens[:count]))) for count in range(len(tokens) + 1)]
    return list(zip(ends[:-1], ends[1:], strict=True))
