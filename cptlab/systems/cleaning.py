"""The program in an answer: what the model wrote up to its end, cleaned as the programs of other tools are."""

from __future__ import annotations

from dataclasses import replace

from cptlab.judging.cleaning.clean import clean
from cptlab.records import Completion, Prompt, Task


def cleaned(completion: Completion, task: Task, shown: Prompt) -> Completion:
    """Return the completion with the program that its text holds: the function or script, and what it needs.

    `shown` is the prompt that the model read. `completion.program` is its code and the text up to the end. An answer to a
    prompt without code is a whole program. What was cleaned before stays as it is.
    """
    if completion.cleaned:
        return completion
    text = completion.program[len(shown.code) :]
    program = clean(text, task, is_solution=not shown.code, keep_usage=False)
    return replace(completion, program=program, cleaned=program != completion.program)
