"""Prompts that a person writes: what of them is the program's beginning, and how base and chat models are asked."""

import pytest

from cptlab.errors import UserError
from cptlab.tasks.free_prompt import free_task
from cptlab.tasks.prompting import ChatFormat, chat_prompt, question_of

DOCUMENTED = 'def add(a, b):\n    """Add."""'
DESCRIBED = '"""Add two numbers."""\nimport math\n\ndef add(a, b):'


@pytest.mark.parametrize("text, code, entry_point", [
    ("def add(a, b):", "def add(a, b):", "add"),
    ("def add(a, b):\n", "def add(a, b):", "add"),
    (DOCUMENTED, DOCUMENTED, "add"),
    (DESCRIBED, "import math\n\ndef add(a, b):", "add"),
    ("async def f():\r\n", "async def f():", "f"),
    ('"""Read numbers and print their sum."""', "", None),
    ("import sys\nfor line in sys.stdin:", "import sys\nfor line in sys.stdin:", None),
    ("# print the primes below 100", "# print the primes below 100", None),
    ("def helper(x):\n    return x\n\ndef main(y):", "def helper(x):\n    return x\n\ndef main(y):", "main"),
])  # fmt: skip
def test_what_is_python_is_gone_on_with_as_it_stands(text, code, entry_point):
    task = free_task(text)
    assert task.prompt.text == text.replace("\r\n", "\n").rstrip() and task.prompt.code == code
    assert (task.entry_point, task.kind) == (entry_point, "call" if entry_point else "stdin")
    assert question_of(task).text == f"```\n{task.prompt.text}\n```"


@pytest.mark.parametrize("text", [
    "Write a function that reverses a list.", "hello", "reverse, sort", "Sum x + y", "for each word, count it:",
    "sort\nthe list", 'Say "\\d" \'twice',
])  # fmt: skip
def test_words_become_a_docstring_or_a_question_of_their_own(text):
    """Also words that happen to parse as Python."""
    task = free_task(f"  {text}\n")
    assert task.prompt.text == f'"""\n{text}\n"""\n' and task.prompt.code == "" and task.kind == "stdin"
    (span,) = task.prompt.spans
    assert task.prompt.text[span.start : span.end] == text
    asked = chat_prompt(question_of(task), task, ChatFormat("<user>", "<assistant>"))
    assert f":\n{text}<assistant>" in asked.text and asked.text.endswith("```python\n") and asked.code == ""


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_prompt_is_refused(text):
    with pytest.raises(UserError, match="The prompt is empty"):
        free_task(text)
