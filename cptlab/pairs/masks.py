"""Masks of the tokens in which two programs differ (CPT IV-B-2), and the lines of tokens.

`refine="message_lines"` is not in the paper. It keeps only the differences that touch a line with a message of the scorer.
pylint reports a message on the line where a construct starts, so a difference that holds only the end of the construct
(the `else:` of R1705, no-else-return) is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from difflib import SequenceMatcher

Region = tuple[int, int, int, int]  # better[i1:i2] replaces worse[j1:j2]; one of the two may be empty
Mask = tuple[int, ...]


def difference_regions(better: Sequence[int], worse: Sequence[int]) -> list[Region]:
    """Return the non-matching segments of two token sequences, in order, as difflib finds them without its junk rule."""
    opcodes = SequenceMatcher(None, better, worse, autojunk=False).get_opcodes()
    return [(i1, i2, j1, j2) for tag, i1, i2, j1, j2 in opcodes if tag != "equal"]


def region_masks(regions: Sequence[Region], better_length: int, worse_length: int) -> tuple[Mask, Mask]:
    """Return the masks of both programs, one number per token: 1 inside a region, 0 elsewhere."""
    better, worse = [0] * better_length, [0] * worse_length
    for i1, i2, j1, j2 in regions:
        better[i1:i2] = [1] * (i2 - i1)
        worse[j1:j2] = [1] * (j2 - j1)
    return tuple(better), tuple(worse)


def token_masks(better: Sequence[int], worse: Sequence[int]) -> tuple[Mask, Mask]:
    """Return the masks m_a, m_b of CPT eq. 9: 1 on non-matching tokens, 0 on matching ones.

    One mask is empty (all 0) if one program is the other with tokens inserted, and both are if the tokens are equal.
    The order matters: difflib(b, a) may match other tokens than difflib(a, b).
    """
    return region_masks(difference_regions(better, worse), len(better), len(worse))


def refined_masks(
    better: Sequence[int],
    worse: Sequence[int],
    better_token_lines: Sequence[int],
    worse_token_lines: Sequence[int],
    better_lines: Collection[int],
    worse_lines: Collection[int],
) -> tuple[Mask, Mask]:
    """Return the masks of the regions in which a token of either program is on a line with a message.

    A region is kept in both programs, so a mended line keeps its mask in the better program, where the message is gone.
    `*_token_lines` holds each token's line (see `token_lines`), and `*_lines` the lines that carry a message.
    """
    flagged = [
        (i1, i2, j1, j2)
        for i1, i2, j1, j2 in difference_regions(better, worse)
        if any(line in better_lines for line in better_token_lines[i1:i2])
        or any(line in worse_lines for line in worse_token_lines[j1:j2])
    ]
    return region_masks(flagged, len(better), len(worse))


def token_lines(ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[int]:
    """Return the line (from 0) of each token, which is the line of its first visible character.

    A token of white space is on the line where it ends, so a newline with indentation belongs to the text that follows.
    Tokens are decoded one by one. That is sound for newlines, which are one byte in every tokenizer.
    """
    pieces = {token: decode([token]) for token in set(ids)}
    lines, newlines = [], 0
    for token in ids:
        piece = pieces[token]
        leading = piece[: len(piece) - len(piece.lstrip())]
        lines.append(newlines + leading.count("\n"))
        newlines += piece.count("\n")
    return lines


def message_lines(program_lines: Collection[int], code: str) -> tuple[int, ...]:
    """Return the lines of the completion (from 0) among the scorer's lines of the program `code + completion` (from 1).

    Lines that belong to `code` (a signature, say) alone are left out.
    """
    offset = code.count("\n") + 1
    return tuple(sorted({line - offset for line in program_lines if line >= offset}))
