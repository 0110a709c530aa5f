"""Ask again with the linter's messages: the model sees its own program and what the scorer remarks on, and writes another.

The second program counts, whether it is better or not. One without messages is not asked for again, nor one whose longer
prompt does not fit the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from cptlab.errors import UserError
from cptlab.records import Message, Prompt, Span
from cptlab.settings.setting import Setting, check_settings

CHAT = (
    "\n\nHere is a program for it:\n```python\n{program}\n```\nA linter remarks on it:\n{messages}\n"
    "Write the whole program again, such that it still solves the problem and the linter has nothing to remark on."
)
BASE = (
    "# A first version of the program:\n{program}\n# What a linter remarks on in it:\n{messages}\n"
    "# The whole program for the same task, on which the linter has nothing to remark:\n"
)
FIELDS = ("{program}", "{messages}")


@dataclass(frozen=True)
class Feedback:
    """The texts stand behind the question of a chat model, and before the prompt of a base model."""

    chat: Annotated[
        str, Setting("What a chat model is told behind its question; {program} and {messages} are filled in.")
    ] = CHAT
    base: Annotated[str, Setting("What a base model reads before its prompt, with the same fields.")] = BASE
    most: Annotated[int, Setting("Messages that are named at most, those of the first lines.", at_least=1)] = 10

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("chat", "base"):
            if any(getattr(self, name).count(field) != 1 for field in FIELDS):
                raise UserError(f"feedback.{name} must have {{program}} and {{messages}}, each once. Put them in.")

    def apply(self, prompt: Prompt, program: str, messages: Sequence[Message], is_chat: bool) -> Prompt:
        """Return the prompt with the program and its messages. For a base model, they are comments."""
        named = sorted(messages, key=lambda one: (one.line, one.id))[: self.most]
        lines = [f"line {one.line}: {one.symbol} ({one.id})" for one in named]
        if is_chat:
            return replace(prompt, text=prompt.text + self._filled(self.chat, program, lines))
        before = self._filled(self.base, program, [f"# {line}" for line in lines])
        spans = tuple(Span(one.name, one.start + len(before), one.end + len(before)) for one in prompt.spans)
        return replace(prompt, text=before + prompt.text, spans=spans)

    def _filled(self, text: str, program: str, lines: Sequence[str]) -> str:
        first, _, rest = text.partition("{messages}")
        parts = (part.replace("{program}", program.strip("\n")) for part in (first, rest))
        return "\n".join(lines).join(parts)
