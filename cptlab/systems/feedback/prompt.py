"""The prompt that asks once more: the model's own program and what it is told about that stand in it."""

from __future__ import annotations

from dataclasses import replace

from cptlab.records import Prompt, Span
from cptlab.tasks.prompting import FENCE


def with_feedback(prompt: Prompt, program: str, told: str, *, called: str, is_chat: bool) -> Prompt:
    """Return the prompt with an earlier program and what is told about it, as a span `nl` of its own.

    A base model reads them before the task, as comments, and the program is `called` something; a chat model reads them
    behind its question.
    """
    if is_chat:
        added = f"This program was written for it:\n{FENCE}python\n{program.rstrip()}\n{FENCE}\n{told}\nCorrect it."
        start = len(prompt.text) + 2
        spans = (*prompt.spans, Span("nl", start, start + len(added)))
        return replace(prompt, text=f"{prompt.text}\n\n{added}", spans=spans)
    lines = f"{called}:\n\n{program.rstrip()}\n\n{told}\n\nThe corrected program:".splitlines()
    added = "\n".join(f"# {line}".rstrip() for line in lines)
    by = len(added) + 1
    moved = (Span(span.name, span.start + by, span.end + by) for span in prompt.spans)
    return replace(prompt, text=f"{added}\n{prompt.text}", spans=(Span("nl", 0, len(added)), *moved))
