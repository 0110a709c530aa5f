"""Prompt templates: text, code tail and spans."""

import pytest

from cptlab.errors import UserError
from cptlab.records import Prompt, Span
from cptlab.tasks.template import apply_template

CODE = 'def f(x):\n    """Double x."""\n'
TEXT = "# Write f.\n# f(1) == 2\n# f(2) == 4\n" + CODE


def _span(name, text, whole=TEXT):
    start = whole.index(text)
    return Span(name, start, start + len(text))


PROMPT = Prompt(
    TEXT,
    CODE,
    (_span("nl", "Write f."), _span("tests", "f(1) == 2"), _span("tests", "f(2) == 4"), _span("nl", "Double x.")),
)


def _texts(prompt, name):
    return [prompt.text[s.start : s.end] for s in prompt.spans if s.name == name]


def test_no_template_changes_nothing():
    assert apply_template(PROMPT, None) is PROMPT


def test_fields_are_filled_and_spans_point_to_the_same_text():
    new = apply_template(PROMPT, "### {{Instruction}}:\n{nl}\nTests:\n{tests}\n### Response:\n{code}")
    assert new.text == ("### {Instruction}:\nWrite f.\nDouble x.\nTests:\nf(1) == 2\nf(2) == 4\n### Response:\n" + CODE)
    assert new.code == CODE
    assert _texts(new, "nl") == ["Write f.", "Double x.", "Double x."]  # the docstring's, once more inside the code
    assert _texts(new, "tests") == ["f(1) == 2", "f(2) == 4"]
    assert _texts(new, "code") == [CODE]


def test_a_prompt_that_is_all_code_keeps_its_spans():
    prompt = Prompt(CODE, CODE, (_span("nl", "Double x.", CODE), Span("code", 0, len(CODE))))
    new = apply_template(prompt, "Complete:\n{code}")
    assert _texts(new, "nl") == ["Double x."] and _texts(new, "code") == [CODE]


def test_a_script_task_has_no_code_span():
    prompt = Prompt("Read a number.\n", "", (Span("nl", 0, 14),))
    new = apply_template(prompt, "Q: {nl}\n{tests}A:\n{code}")
    assert new.text == "Q: Read a number.\nA:\n" and new.code == ""
    assert [s.name for s in new.spans] == ["nl"]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{nl}\n{code}\n", "does not end"),
        ("", "does not end"),
        ("{nl}", "does not end"),
        ("{prompt}{code}", "unknown field {prompt}"),
        ("{}{code}", "unknown field"),
        ("{nl{code}", "cannot be read|unknown field"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template, complaint):
    with pytest.raises(UserError, match=complaint):
        apply_template(PROMPT, template)
