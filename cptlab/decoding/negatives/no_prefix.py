"""The second stream is the same prompt without the trained prefix, so that ω sets the strength of the prefix.

ω = 0 is the untuned model, ω = 1 the tuned one, and ω > 1 exaggerates the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cptlab.backbone import Backbone
from cptlab.decoding.negatives.stream import Stream
from cptlab.records import Prompt


@dataclass(frozen=True)
class NoPrefix:
    """The negative without the prefix. The first stream needs one."""

    needs_prefix: ClassVar[bool] = True

    def stream(self, backbone: Backbone, prompt: Prompt) -> Stream:
        return Stream(backbone.encode_prompt(prompt.text), with_prefix=False)
