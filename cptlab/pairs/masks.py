"""Which tokens of two programs differ (CPT IV-B-2), and on which lines they lie.

Optional and not in the paper: `refine="pylint_lines"` keeps, of the places where two programs differ, those that touch
a line with a pylint message. What it does not do: pylint reports a message on the line where a construct starts, so a
place that only holds the construct's tail (the `else:` of R1705, no-else-return) is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from difflib import SequenceMatcher

Region = tuple[int, int, int, int]  # tokens better[i1:i2] stand where worse[j1:j2] stands; one of the two may be empty
Mask = tuple[int, ...]


def difference_regions(better: Sequence[int], worse: Sequence[int]) -> list[Region]:
    """The non-matching segments of two token sequences, in order, as difflib finds them without its junk rule."""
    opcodes = SequenceMatcher(None, better, worse, autojunk=False).get_opcodes()
    return [(i1, i2, j1, j2) for tag, i1, i2, j1, j2 in opcodes if tag != "equal"]


def region_masks(regions: Sequence[Region], better_length: int, worse_length: int) -> tuple[Mask, Mask]:
    """Masks of both programs, one 0 or 1 per token: 1 inside a region."""
    better, worse = [0] * better_length, [0] * worse_length
    for i1, i2, j1, j2 in regions:
        better[i1:i2] = [1] * (i2 - i1)
        worse[j1:j2] = [1] * (j2 - j1)
    return tuple(better), tuple(worse)


def token_masks(better: Sequence[int], worse: Sequence[int]) -> tuple[Mask, Mask]:
    """The masks m_a, m_b of CPT eq. 9: 1 on non-matching tokens, 0 on matching ones.

    One mask is empty (all 0) where one program is the other with tokens inserted; both are where the tokens are equal.
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
    """`token_masks` of those regions only in which a token of either program lies on a line with a message.

    Region by region, so a mended line keeps its mask in the better program though the message is gone there.
    `*_token_lines`: each token's line (see `token_lines`); `*_lines`: the lines that carry a pylint message.
    """
    flagged = [
        (i1, i2, j1, j2)
        for i1, i2, j1, j2 in difference_regions(better, worse)
        if any(line in better_lines for line in better_token_lines[i1:i2])
        or any(line in worse_lines for line in worse_token_lines[j1:j2])
    ]
    return region_masks(flagged, len(better), len(worse))


def token_lines(ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[int]:
    """The line (from 0) of each token: that of its first visible character.

    A token of white space alone lies on the line where it ends, so a newline with indentation goes with what follows.
    Tokens are decoded one by one, which is sound for newlines: they are one byte in every tokenizer.
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
    """Lines of the completion (from 0) among pylint's lines of the program `code + completion` (from 1).

    Messages on lines that `code` (a signature, say) holds to itself are left out.
    """
    offset = code.count("\n") + 1
    return tuple(sorted({line - offset for line in program_lines if line >= offset}))
