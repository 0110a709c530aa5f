"""Selective Prompt Anchoring (arXiv 2408.09121): the second stream is the prompt with the anchored tokens masked.

The embeddings of the anchored tokens are replaced one for one by the mask token's, so that lengths and positions are
unchanged (SPA 3.3). Eq. 19's second-order term is identically zero when F(−1) is taken from eq. 16, so there is no
higher order to offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cptlab.backbone import Backbone
from cptlab.decoding.anchors import mask_spans, span_names
from cptlab.decoding.negatives.stream import Stream
from cptlab.records import Prompt
from cptlab.settings.setting import Setting


@dataclass(frozen=True)
class Masked:
    """The paper finds the description alone ('nl') the best anchor (Table 2), and the best ω between 1.05 and 1.6."""

    spans: Annotated[
        str | Sequence[str],
        Setting("Spans of the prompt that are anchored: some of nl, code, tests, shots and anchor; or all."),
    ] = ("nl",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", span_names(self.spans))

    def stream(self, backbone: Backbone, prompt: Prompt) -> Stream | None:
        ids = masked_ids(backbone, prompt, self.spans)
        return None if ids is None else Stream(ids)


def masked_ids(backbone: Backbone, prompt: Prompt, names: Sequence[str]) -> list[int] | None:
    """Return the prompt's token ids with the anchored ones masked, or None if none is anchored.

    A token is anchored if it shares a character with a span of one of these names. Raises UserError for a tokenizer that
    cannot locate its tokens, and for a backbone without a token to mask with.
    """
    spans = [span for span in prompt.spans if span.name in names]
    if not spans:
        return None
    ids, masked = mask_spans(backbone.tokenizer, prompt.text, spans, backbone.mask_id)
    return None if masked == ids else masked[backbone.text_tokens.prompt_part(ids)]
