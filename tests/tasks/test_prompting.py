"""How a chat model is asked: EvalPlus's words in the tokenizer's own template, every span where its text is."""

from __future__ import annotations

from datetime import datetime

import pytest

from cptlab.backbone.chat_format import chat_format
from cptlab.errors import UserError
from cptlab.kata.benchmark import build
from cptlab.records import Prompt, Span
from cptlab.systems.prompts import CleanCode
from cptlab.tasks.apps import apps
from cptlab.tasks.bigcodebench import bigcodebench
from cptlab.tasks.humaneval import humaneval
from cptlab.tasks.mbpp import mbpp, mbpp_plus
from cptlab.tasks.prompting import ChatFormat, chat_prompt, question_of
from tests.helpers.tiny_models import tiny_tokenizer

TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "trimmed": (
        "{% for m in messages %}<|start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
        "{% if date_string is defined %}{% endif %}"
    ),
    "instruct": (
        "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}"
        "</s>{% endif %}{% endfor %}"
    ),
    "thinking": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    ),
}


def tokenizer_with(template: str | None):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def as_evalplus(task, tokenizer) -> str:
    """The prompt as EvalPlus makes it: fill the template in with an answer, and cut before what the answer holds."""
    mark = "-here the answer begins-"
    user = (
        "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
        f"```\n{task.prompt.text.strip()}\n```\n"
    )
    answer = (
        "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
        f"```python\n{mark}\n```\n"
    )
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(messages, tokenize=False).split(mark)[0]


@pytest.mark.data
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("load", (humaneval, mbpp, mbpp_plus, bigcodebench))
def test_functions_are_asked_for_as_evalplus_asks(name, load, data_dir):
    tokenizer = tokenizer_with(TEMPLATES[name])
    chat = chat_format(tokenizer, "tiny")
    for task in load(str(data_dir)).tasks[:25]:
        made = chat_prompt(question_of(task), task, chat).text
        expected = as_evalplus(task, tokenizer)
        assert made == expected if name != "trimmed" else made.replace("\n<|eot|>", "<|eot|>") == expected


@pytest.mark.data
@pytest.mark.parametrize("load", (humaneval, mbpp, mbpp_plus, bigcodebench, apps))
def test_every_span_keeps_its_text_in_the_chat(load, data_dir):
    chat = chat_format(tokenizer_with(TEMPLATES["chatml"]), "tiny")
    for task in load(str(data_dir)).tasks[:40]:
        question = question_of(task)
        shown = chat_prompt(question, task, chat)
        texts = [(s.name, shown.text[s.start : s.end]) for s in shown.spans]
        assert texts == [(s.name, question.text[s.start : s.end]) for s in question.spans]
        if task.question is None:
            assert texts == [(s.name, task.prompt.text[s.start : s.end]) for s in task.prompt.spans]
        assert "nl" in dict(texts) and shown.code == "" and shown.text.endswith("```python\n")
        assert shown.stops[0] == "\n```" and ("\nprint(" in shown.stops) == (task.kind != "stdin")
        assert shown.max_new_tokens == task.prompt.max_new_tokens >= 768


def test_a_changed_prompt_is_asked_for_in_the_chat():
    task = build()[0][0]
    changed = chat_prompt(CleanCode("Be tidy.").apply(question_of(task)), task, ChatFormat("<user>", "<model>"))
    nl = next(span for span in changed.spans if span.name == "nl")
    assert changed.text[nl.start : nl.end].endswith("Be tidy.")


def test_a_question_of_its_own_stands_without_fences():
    task = build()[0][0]
    own = Prompt("Add them.", "", (Span("nl", 0, 9),))
    shown = chat_prompt(question_of(type(task)(**vars(task) | {"question": own})), task, ChatFormat("<u>", "<m>"))
    assert "code block:\nAdd them.<m>Below is" in shown.text and shown.text.count("```") == 1


@pytest.mark.parametrize(
    "today",
    [
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}",
        "{% set today = strftime_now('%Y-%m-%d') %}{{ 'It is ' + today }}",
    ],
)
def test_a_template_that_names_today_gives_the_same_prompt_every_day(today, monkeypatch):
    tokenizer = tokenizer_with(today + TEMPLATES["chatml"])
    now = chat_format(tokenizer, "tiny")
    assert "2024" in now.before

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 2, 3)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert "2031" in as_evalplus(build()[0][0], tokenizer)  # the template does ask for the date
    assert chat_format(tokenizer, "tiny") == now


@pytest.mark.parametrize(
    "template, words",
    [
        (None, "has no chat template"),
        ("", "has no chat template"),
        ("{{ raise_exception('no roles here') }}", "no roles here"),
        ("{{ messages[0]['content'] }}", "does not keep a message and its answer"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "does not keep"),
        ("{{ messages[1]['content'] }}{{ messages[0]['content'] }}", "does not keep"),
        ("{{ nothing.at.all }}", "cannot be filled in"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template, words):
    with pytest.raises(UserError, match="Set prompting=base") as error:
        chat_format(tokenizer_with(template), "tiny")
    assert words in str(error.value)
