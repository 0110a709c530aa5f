"""The second stream is the same prompt without the trained prefix: ω becomes a dial on the strength of the prefix.

ω = 0 is the untuned model, 1 the tuned one, above 1 an exaggerated one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cptlab.backbone import Backbone
from cptlab.decoding.negatives.stream import Stream
from cptlab.records import Prompt


@dataclass(frozen=True)
class NoPrefix:
    """Needs a prefix in the first stream."""

    needs_prefix: ClassVar[bool] = True

    def stream(self, backbone: Backbone, prompt: Prompt) -> Stream:
        return Stream(backbone.encode_prompt(prompt.text), with_prefix=False)
