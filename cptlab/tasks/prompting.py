"""Ask a model for a task's program in the form that it was trained on: as a text to continue, or as a chat.

A base model continues the benchmark's prompt, and its answer ends at the benchmark's stop texts. A chat model is asked as
EvalPlus asks (arXiv 2305.01210): the user's turn wants a script for the problem, the assistant's turn is opened with a
fenced block, and the answer ends where that block ends, or where a function is followed by a test run of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cptlab.records import Prompt, Span, Task

FORMS = ("auto", "base", "chat")
FENCE = "```"
READ_AND_PRINT = "Read the input from standard input, and print the output."  # what a script does, in words
TEST_RUNS = ("\nif __name__", "\ndef main(", "\nprint(", "\nassert ")  # EvalPlus's, and assertions
REQUEST = "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
FUNCTION_OPENING = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
)
SCRIPT_OPENING = "Below is a self-contained Python script that solves the problem and passes corresponding tests:\n"


@dataclass(frozen=True)
class ChatFormat:
    """A model's own chat template as text: what stands before the user's message, and between it and the answer."""

    before: str
    between: str


def question_of(task: Task) -> Prompt:
    """Return what a chat model is asked: the task's own question, or else its prompt between fences. It has no code."""
    if task.question is not None:
        return task.question
    text = task.prompt.text
    start, inside = len(text) - len(text.lstrip()), text.strip()
    return _moved(task.prompt, f"{FENCE}\n", start, inside, f"\n{FENCE}")


def chat_prompt(question: Prompt, task: Task, chat: ChatFormat) -> Prompt:
    """Return the whole text that the model continues: the question in the chat, up to the opened block of the answer."""
    is_script = task.kind == "stdin"
    opening = SCRIPT_OPENING if is_script else FUNCTION_OPENING
    before = chat.before + REQUEST
    behind = f"{chat.between}{opening}{FENCE}python\n"
    asked = _moved(question, before, 0, question.text, behind)
    return replace(asked, stops=(f"\n{FENCE}", *(() if is_script else TEST_RUNS)), closing=FENCE)


def _moved(prompt: Prompt, before: str, start: int, inside: str, behind: str) -> Prompt:
    """Return the prompt with the text `before + inside + behind`; `inside` began at `start` of its text."""
    by = len(before) - start
    spans = tuple(Span(span.name, span.start + by, span.end + by) for span in prompt.spans)
    return Prompt(before + inside + behind, "", spans, prompt.stops, prompt.closing, prompt.max_new_tokens)
