"""Standard streams that cannot fail a command: what a terminal cannot show is written in ASCII.

A stream that takes no more (`| head`, a full disk, a closed descriptor) is replaced by /dev/null: results are in files.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import unicodedata
from typing import Any

ERRORS = "cptlab.ascii"  # the name of the error handler of both streams
LOOK_ALIKES = {  # one character for one where columns are aligned
    **{"─": "-", "━": "-", "−": "-", "–": "-", "—": "-", "│": "|", "├": "+", "└": "+", "▁": "_", "█": "#"},
    **{"·": ".", "…": "...", "→": ">", "➞": ">", "←": "<", "↑": "^", "↓": "v", "×": "x", "±": "+-", "∞": "inf"},
    **{"“": '"', "”": '"', "’": "'", "‘": "'", "≤": "<=", "≥": ">=", "•": "*"},
    **{"ω": "w", "α": "a", "β": "b", "Δ": "D", "Σ": "S", "⊙": "*", "ᵀ": "T"},
}


def protect_streams() -> None:
    """Make the standard streams of this process unfailing, once. Streams that a caller has put there stay."""
    codecs.register_error(ERRORS, _in_ascii)
    _occupy_descriptors()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _unfailing(stream, number))


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """The error handler: look-alikes in ASCII; accents are dropped, and what is left is written as its code point."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    if character in LOOK_ALIKES:
        return LOOK_ALIKES[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


def _occupy_descriptors() -> None:
    """Open /dev/null on the standard descriptors that are closed: the next file would be opened there, and printed to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)  # worker processes have standard streams, too
            else:
                os.dup2(opened, number)
                os.close(opened)


def _unfailing(stream: Any, number: int) -> io.TextIOWrapper:
    """Return a stream in the place of `stream`, which is None where the descriptor was closed at the start."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()
    target = os.open(os.devnull, os.O_WRONLY) if stream is None else number
    os.set_blocking(target, True)  # a pipe that does not wait for its reader loses what is printed
    raw = io.FileIO(target, "wb", closefd=False)
    encoding, by_line = "utf-8" if stream is None else stream.encoding, raw.isatty() or number == 2
    return _UnfailingStream(io.BufferedWriter(raw), encoding=encoding, errors=ERRORS, line_buffering=by_line)


class _UnfailingStream(io.TextIOWrapper):
    """A text stream to which every write succeeds: after the first that fails, its descriptor is /dev/null."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        super().flush()
        if error.errno != errno.EPIPE and self.fileno() == 1:  # whoever closed a pipe knows it
            print(f"warning: standard output: {error.strerror}. Nothing more is printed there.", file=sys.stderr)
