"""Put a benchmark's prompt into the form that an instruction-tuned model was trained on.

A template is plain text with the fields `{nl}`, `{tests}` and `{code}`; literal braces are doubled, as in str.format.
"""

from __future__ import annotations

from dataclasses import replace
from string import Formatter

from cptlab.errors import UserError
from cptlab.records import Prompt, Span

FIELDS = ("nl", "tests", "code")


def apply_template(prompt: Prompt, template: str | None) -> Prompt:
    """Return `prompt` in the words of `template`, with its spans moved along; without a template return it as it is.

    `{nl}` and `{tests}` stand for the prompt's spans of that name (several are joined by newlines, none is ''),
    `{code}` for `prompt.code` with the spans inside it. The template ends with `{code}`, which the completion
    continues. Raise UserError for a template that does not.
    """
    if template is None:
        return prompt
    text, spans = "", []
    for literal, field in _parse(template):
        text += literal
        if field == "code":
            offset = len(text) - (len(prompt.text) - len(prompt.code))
            inside = [s for s in prompt.spans if s.start + offset >= len(text)]
            spans += [Span(s.name, s.start + offset, s.end + offset) for s in inside]
            if prompt.code and not any(s.name == "code" for s in inside):
                spans.append(Span("code", len(text), len(text) + len(prompt.code)))
            text += prompt.code
        elif field is not None:
            for number, span in enumerate(s for s in prompt.spans if s.name == field):
                text += "\n" if number else ""
                spans.append(Span(field, len(text), len(text) + span.end - span.start))
                text += prompt.text[span.start : span.end]
    return replace(prompt, text=text, spans=tuple(spans))


def _parse(template: str) -> list[tuple[str, str | None]]:
    remedy = "Use the fields {nl}, {tests} and {code}, end with {code}, and double any other brace."
    try:
        parts = [(literal, field) for literal, field, _, _ in Formatter().parse(template)]
    except ValueError as error:
        raise UserError(f"The prompt template cannot be read ({error}). {remedy}") from None
    unknown = [field for _, field in parts if field is not None and field not in FIELDS]
    if unknown:
        raise UserError(f"The prompt template has an unknown field {{{unknown[0]}}}. {remedy}")
    if not parts or parts[-1][1] != "code":
        raise UserError(f"The prompt template does not end with {{code}}, which completions continue. {remedy}")
    return parts
