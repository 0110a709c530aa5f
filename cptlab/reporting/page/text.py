"""Untrusted text in HTML: escaped, and characters that cannot be seen are written out."""

from __future__ import annotations

import html
import re

# control characters, invisible ones, those that turn the direction of writing, and halves of surrogate pairs
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
LINE_END = re.compile(r"\r\n?|\n")  # as Python reads a program


def escaped(text: str) -> str:
    """Return text for HTML, between tags or in an attribute. An unseen character shows as [U+202E]."""
    return html.escape(UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text))


def lines_of(text: str) -> list[str]:
    """Return the lines of a program, numbered as pylint numbers them. The end of the last line begins no other."""
    lines = LINE_END.split(text)
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines
