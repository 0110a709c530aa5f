"""Text to tokens and back, as a model reads a prompt and writes what follows it.

Tokenizers treat a text's start and end in ways that fit whole texts: they put a space before the first word, a token
that opens a text before it, one that ends a text behind it. A completion follows a prompt, so it has none of these; a
prompt is opened once, however it begins, and never ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from cptlab.errors import UserError

OPENINGS = ("\n", "=")  # each stands for the text before a completion; the second where a line break joins what follows
PROBES = (
    "def add(a, b):\n    if a:\n        return b\n    return a  + b\n",
    "class Point:\n\tx = 1\n\n\tdef move(self):\n\t\tself.x += 1\n",
    "\n\n        pass\n",
    "    name = 'é ñ ü → 日本 🙂'  # naïve\n",
)


class TextTokens:
    """The tokens of prompts and completions by one tokenizer.

    `before` and `behind` are the special tokens that it puts around every text. `opening` are the tokens of the first of
    `OPENINGS` if a text is tokenised differently behind it than at the start, else [].
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        whole, alone = tokenizer("x", verbose=False).input_ids, self._plain("x")
        starts = [i for i in range(len(whole) - len(alone) + 1) if whole[i : i + len(alone)] == alone]
        start = starts[0] if starts else 0
        self.before: list[int] = whole[:start]
        self.behind: list[int] = whole[start + len(alone) :]
        self._openings = [(text, self._plain(text)) for text in OPENINGS]
        differs = self._behind(*self._openings[0], "x") not in (None, alone)
        self.opening = self._openings[0][1] if differs else []

    def prompt(self, text: str) -> list[int]:
        """Return the token ids of a text that opens the input, with the special tokens that open one."""
        ids = self._tokenizer(text, verbose=False).input_ids
        return ids[self.prompt_part(ids)]

    def prompt_part(self, ids: Sequence[int]) -> slice:
        """Return which of the tokens of a whole text make a prompt of it.

        Those that end a text are left out, and those that open one where the text itself begins with them, too.
        """
        doubled = len(self.before) if self.before and list(ids[: 2 * len(self.before)]) == 2 * self.before else 0
        return slice(doubled, len(ids) - len(self.behind))

    def completion(self, text: str) -> list[int]:
        """Return the token ids of a text that follows another one, without special tokens and without a space before it."""
        for opening in self._openings if self.opening else ():
            found = self._behind(*opening, text)
            if found is not None:
                return found
        return self._plain(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a completion's token ids, without special tokens, but with its leading space, if any."""
        opened = self._text(self.opening) if self.opening else ""
        return self._text([*self.opening, *ids])[len(opened) :]

    def check(self, name: str) -> None:
        """Raise UserError if prompts, completions and both together do not come back as the text that they were."""
        for first in PROBES:
            prompt = self.prompt(first)
            whole = self._text(prompt)
            self._compare(name, first, whole[1:] if whole == " " + first else whole)
            for second in PROBES:
                completion = self.completion(second)
                self._compare(name, second, self.decode(completion))
                self._compare(name, whole + second, self._text(prompt + completion))

    def _compare(self, name: str, text: str, back: str) -> None:
        if back != text:
            raise UserError(
                f"The tokenizer of {name} changes texts: {text!r} comes back as {back!r}. Programs would be read and "
                "written wrongly. Use a model whose tokenizer keeps white space and every character."
            )

    def _behind(self, opening: str, tokens: list[int], text: str) -> list[int] | None:
        """Return the tokens of a text behind an opening, or None if the two share a token."""
        ids = self._plain(opening + text)
        return ids[len(tokens) :] if ids[: len(tokens)] == tokens else None

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def _text(self, ids: Sequence[int]) -> str:
        numbers = np.asarray(ids, dtype=np.int64)  # of a list, transformers looks at each number in Python
        text = self._tokenizer.decode(numbers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
