"""A tokenizer's own chat template, read as the texts around a user's message and before the answer."""

from __future__ import annotations

import re
from datetime import datetime

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from cptlab.errors import UserError
from cptlab.tasks.prompting import ChatFormat

_MESSAGE, _ANSWER = "(the message of the user)", "(the answer of the assistant)"
_TODAY = datetime(2024, 7, 26)  # for templates that name today's date, so that a prompt stays the same prompt
_ASKS_DATE = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


def chat_format(tokenizer: PreTrainedTokenizerBase, name: str) -> ChatFormat:
    """Return the chat format of the tokenizer of the model `name`.

    The template is filled in with a message, which ends with a newline, and an answer, as EvalPlus does, and is cut where
    they stand. Raises UserError where there is no template, and where it does not keep both texts once and in this order.
    """
    remedy = "Set prompting=base, or give backbone.prompt_template."
    if not getattr(tokenizer, "chat_template", None):  # some tokenizers do not know the name
        raise UserError(f"The tokenizer of {name} has no chat template. {remedy}")
    chat = [{"role": "user", "content": f"{_MESSAGE}\n"}, {"role": "assistant", "content": _ANSWER}]
    try:
        template = _ASKS_DATE.sub(lambda call: repr(_TODAY.strftime(call[2])), tokenizer.get_chat_template())
        date = _TODAY.strftime("%d %b %Y")
        text = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, date_string=date)
    except (TemplateError, ValueError, TypeError) as error:
        raise UserError(f"The chat template of {name} cannot be filled in ({error}). {remedy}") from None
    assert isinstance(text, str)
    before, message, rest = text.partition(_MESSAGE)
    between, answer, behind = rest.partition(_ANSWER)
    if not (message and answer) or _MESSAGE in rest or _ANSWER in before + behind:
        raise UserError(f"The chat template of {name} does not keep a message and its answer in order. {remedy}")
    return ChatFormat(before, between)
