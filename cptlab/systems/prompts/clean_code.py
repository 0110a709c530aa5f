"""Ask for clean code: one more sentence at the end of the task's description."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from cptlab.records import Prompt, Span
from cptlab.settings.setting import Setting, check_settings

SENTENCE = (
    "Write clean, idiomatic code: no unused variables, no redefined built-ins, no unnecessary else, no needless "
    "complexity."
)


@dataclass(frozen=True)
class CleanCode:
    """Puts `sentence` at the end of the description (the first span `nl`), which then holds it.

    The sentence stands on the line on which the description ends, so a docstring stays one and a comment too. A prompt
    without a description stays as it is. Every other span keeps its text. A description inside the program's own code, as
    in HumanEval, makes the sentence a part of that code.
    """

    sentence: Annotated[str, Setting("What is asked for, in one line.")] = SENTENCE

    def __post_init__(self) -> None:
        check_settings(self)

    def apply(self, prompt: Prompt) -> Prompt:
        description = next((span for span in prompt.spans if span.name == "nl"), None)
        if description is None:
            return prompt
        added, at = f" {self.sentence}", description.end
        code = prompt.code
        begin = len(prompt.text) - len(code)
        if at > begin:
            code = code[: at - begin] + added + code[at - begin :]
        spans = tuple(
            replace(span, end=span.end + len(added)) if span is description else _moved(span, at, len(added))
            for span in prompt.spans
        )
        return replace(prompt, text=prompt.text[:at] + added + prompt.text[at:], code=code, spans=spans)


def _moved(span: Span, at: int, length: int) -> Span:
    """Return the span after `length` characters were put in at `at`; one that reaches beyond that place holds them."""
    return Span(span.name, span.start + length * (span.start >= at), span.end + length * (span.end > at))
