"""Inline anchors, written into the text with tags: `Sort <anchor>in descending order</anchor>.`

Tags mark places, not strings: the text between them is anchored there and nowhere else, however often it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from cptlab.errors import UserError
from cptlab.records import Prompt, Span

ANCHOR = "anchor"  # the name of a tagged span
ALL = ("nl", "code", "tests", "shots")
SPAN_NAMES = (*ALL, ANCHOR)
OPEN, CLOSE = "<anchor>", "</anchor>"
TAG = re.compile(f"{OPEN}|{CLOSE}")


def parse_anchors(text: str) -> tuple[str, tuple[Span, ...]]:
    """Return the text without its tags, and a span named 'anchor' for each tagged part that is not empty.

    Raises UserError for a tag inside another, one that is never closed, and one that closes nothing.
    """
    plain, spans, start, opened, last = "", [], None, 0, 0
    for tag in TAG.finditer(text):
        plain += text[last : tag.start()]
        last = tag.end()
        if tag[0] == OPEN:
            if start is not None:
                raise UserError(
                    f"{_place(text, tag.start())} opens an anchor inside another. Close the first before it."
                )
            start, opened = len(plain), tag.start()
        else:
            if start is None:
                raise UserError(f"{_place(text, tag.start())} closes no anchor. Write {OPEN} before it, or remove it.")
            if start < len(plain):
                spans.append(Span(ANCHOR, start, len(plain)))
            start = None
    if start is not None:
        raise UserError(f"{_place(text, opened)} is never closed. Write {CLOSE} where the anchor ends.")
    return plain + text[last:], tuple(spans)


def anchored_prompt(text: str, code: str = "") -> Prompt:
    """Return the prompt of a text with tags.

    `code` is the end of `text` that belongs to the program (see `Prompt`), with or without its tags. Raises UserError
    for wrong tags, and if the text does not end with the code.
    """
    plain, spans = parse_anchors(text)
    code = TAG.sub("", code)
    if not plain.endswith(code):
        raise UserError(f"The text does not end with the code {code!r}. Give the end of the text as code, or ''.")
    return Prompt(plain, code, spans)


def span_names(spans: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the spans to anchor, with `all` and `nl+tests` spelt out. UserError for an unknown name or none."""
    names = (spans,) if isinstance(spans, str) else tuple(spans)
    names = ALL if names == ("all",) else tuple(part for name in names for part in name.split("+"))
    unknown = sorted(set(names) - set(SPAN_NAMES))
    if unknown:
        raise UserError(f"There is no prompt span {unknown[0]!r}. Anchor some of {', '.join(SPAN_NAMES)}, or all.")
    if not names:
        raise UserError(
            "No span is anchored, so nothing would be amplified. Anchor some of " + ", ".join(SPAN_NAMES) + "."
        )
    return names


def mask_spans(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    spans: Iterable[Span],
    mask_id: int | None,
    *,
    add_special_tokens: bool = True,
) -> tuple[list[int], list[int]]:
    """Return the text's token ids, and the same ids with every anchored token replaced by `mask_id`.

    A token is anchored if it shares a character with one of the spans. All other tokens are those of the clean text.
    """
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer {name} cannot locate tokens. Use a fast one.")
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=add_special_tokens, verbose=False)
    spans = tuple(spans)
    hits = [any(max(a, span.start) < min(b, span.end) for span in spans) for a, b in encoded.offset_mapping]
    ids = encoded.input_ids
    if not any(hits):
        return ids, list(ids)
    if mask_id is None:
        raise UserError(
            f"The tokenizer {name} has no token to mask with. Name one of its tokens (backbone.mask_token)."
        )
    return ids, [mask_id if hit else token for token, hit in zip(ids, hits, strict=True)]


def _place(text: str, at: int) -> str:
    """Name the tag at this index with its line and column, from 1."""
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    tag = OPEN if text.startswith(OPEN, at) else CLOSE
    return f"The tag {tag} in line {line}, column {column}"
