"""USCD (arXiv 2409.05923): the second stream is the prompt without its examples, which USCD calls a 'lame' prompt."""

from __future__ import annotations

from dataclasses import dataclass

from cptlab.backbone import Backbone
from cptlab.decoding.negatives.stream import Stream
from cptlab.records import Prompt

EXAMPLES = ("tests", "shots")


@dataclass(frozen=True)
class NoExamples:
    """Cut the spans 'tests' and 'shots' out of the prompt. The positions behind them move up."""

    def stream(self, backbone: Backbone, prompt: Prompt) -> Stream | None:
        text, end = "", 0
        for span in sorted((span for span in prompt.spans if span.name in EXAMPLES), key=lambda span: span.start):
            text, end = text + prompt.text[end : max(end, span.start)], max(end, span.end)
        text += prompt.text[end:]
        return None if text == prompt.text else Stream(backbone.encode_prompt(text))
