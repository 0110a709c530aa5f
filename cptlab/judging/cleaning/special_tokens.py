"""Find special tokens of language models in their texts: end of text, turns of a chat, fill in the middle, and the like.

No list of models decides, but the form of a token and its place: `<|…|>`, `<|…>`, `<…|>`, `<｜…｜>`, `[e~[` and `[/…]` can be no Python outside strings;
`<…>` can be none at the end or start of a line, or before a keyword (`a<b>c` is a comparison); `[EOS]` counts only where
nothing else in the text or the prompt is called EOS. Strings and comments are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LITERALS = (
    r"\\.", r'"""(?:[^"\\]|\\.|"(?!""))*+"""', r"'''(?:[^'\\]|\\.|'(?!''))*+'''",
    r'"(?:[^"\\\n]|\\.)*+"', r"'(?:[^'\\\n]|\\.)*+'", r"#[^\n]*",
)  # fmt: skip
_BARRED = r"<\|[^|<>\n]{1,60}\|>|<｜[^｜<>\n]{1,60}｜>|\[\|[\w ]{1,40}\|\]|<\|\w{1,40}>|<\w{1,40}\|>|<[|｜]\w*[|｜]?\s*\Z|\[e~\[|\]~!?b[\[\]]|\[/[A-Za-z_]{1,40}\]"
_ANGLED = r"<{1,2}/?[A-Za-z_0-9][\w:.▁-]{0,40}/?>{1,2}"
_BEFORE_CODE = r"(?=[ \t]*(?:$|[@#<`▁]|\[[A-Za-z]|(?:def|class|import|from|return|for|while|if|with|try|assert|raise|pass|async|global|del)\b))"
_BRACKETED = (
    r"\[(?P<name>(?:[A-Z]+_)*(?:TOKEN|END|BEGIN|START|STOP|DONE|TOOL)(?:_[A-Z0-9]+)*|[BE]O[A-Z]|PAD|UNK|SEP|CLS|g?MASK|INST"
    r"|PYTHON|ANSWER|PREFIX|SUFFIX|MIDDLE|TESTS?|SOLUTION|CODE)\]"
)
_AT_THE_END = r"(?=(?:\[\w+\])*[ \t]*$)"
_FENCE = "\n```\n"


class SpecialTokens:
    """Special tokens by their form, and those that the user names. `prompt`: the code that a text goes on with."""

    def __init__(self, named: Sequence[str], prompt: str) -> None:
        self.prompt = prompt
        literal = "|".join(_LITERALS)
        own = "|".join(map(re.escape, sorted(named, key=len, reverse=True))) or r"(?!)"
        self._in_python = re.compile(
            rf"(?:{literal})|(?P<token>▁?(?:{own}|{_BRACKETED}{_AT_THE_END}))", re.MULTILINE | re.DOTALL
        )
        self._anywhere = re.compile(
            rf"(?:{literal})|(?P<token>▁?(?:{own}|{_BARRED}|^[ \t]*+{_ANGLED}|{_ANGLED}{_BEFORE_CODE}"
            rf"|{_BRACKETED}{_BEFORE_CODE}))",
            re.MULTILINE | re.DOTALL,
        )  # fmt: skip

    def stand_in_python(self, text: str) -> bool:
        """Whether tokens stand where Python would read them as its own: `return x[DONE]`."""
        return any(self._is_token(match, text) for match in self._in_python.finditer(text))

    def as_fences(self, text: str) -> str:
        """Return the text with every token as a fence, since each ends or begins code as a fence does."""
        return self._anywhere.sub(lambda match: _FENCE if self._is_token(match, text) else match[0], text)

    def _is_token(self, match: re.Match, text: str) -> bool:
        if match["token"] is None:
            return False
        name = match["name"]
        if name is None:
            return True
        elsewhere = re.compile(rf"(?<!\[)(?<!\[/)\b{name}\b")
        return not any(elsewhere.search(where) for where in (text, self.prompt)) and "import *" not in text
