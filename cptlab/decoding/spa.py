"""Selective Prompt Anchoring (arXiv 2408.09121): amplify chosen parts of the prompt by logit arithmetic.

    F(ω) = ω · f(E) + (1 − ω) · f(E_mask)                                                      (SPA eq. 18)

f(E) are the raw logits after the prompt; f(E_mask) those after the same prompt with the anchored tokens replaced one
for one by the mask token, so that lengths and positions are unchanged. ω = 1 is the plain model, ω = 0 the masked one.
Eq. 19's second-order term is identically zero when F(−1) is taken from eq. 16, so there is no higher order to offer.

Not here: other negative contexts, gates that mix only at some steps, tuning of ω, inline anchor tags, beam search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.records import Prompt

SPAN_NAMES = ("nl", "code", "tests", "shots")


@dataclass(frozen=True)
class Anchoring:
    """How strongly (`omega`) which named spans of the prompt are anchored.

    The paper finds the best ω between 1.05 and 1.6, 1.28 on average, and the description alone ('nl') the best anchor.
    """

    omega: float = 1.28
    spans: Sequence[str] = ("nl",)

    def __post_init__(self) -> None:
        names = (self.spans,) if isinstance(self.spans, str) else tuple(self.spans)
        object.__setattr__(self, "spans", names)
        unknown = sorted(set(names) - set(SPAN_NAMES))
        if unknown:
            raise UserError(f"There is no prompt span {unknown[0]!r}. Anchor some of {', '.join(SPAN_NAMES)}.")


def masked_ids(backbone: Backbone, prompt: Prompt, anchoring: Anchoring) -> list[int] | None:
    """The prompt's token ids with the anchored ones masked; None where a second stream would change nothing (ω = 1,
    or no anchored token). A token is anchored when it shares a character with an anchored span.
    """
    spans = [span for span in prompt.spans if span.name in anchoring.spans]
    if anchoring.omega == 1 or not spans:
        return None
    if not backbone.tokenizer.is_fast:
        raise UserError(f"The tokenizer of {backbone.name} cannot locate tokens. Use a backbone with a fast one.")
    if backbone.mask_id is None:
        raise UserError(f"{backbone.name} has no token to mask with. Set backbone.mask_token to one of its tokens.")
    encoded = backbone.tokenizer(prompt.text, return_offsets_mapping=True)
    anchored = [
        any(max(start, span.start) < min(end, span.end) for span in spans) for start, end in encoded.offset_mapping
    ]
    if not any(anchored):
        return None
    return [backbone.mask_id if hit else token for token, hit in zip(encoded.input_ids, anchored, strict=True)]


def mix(clean: Tensor, masked: Tensor, omega: Tensor | float) -> Tensor:
    """F(ω) [B, V], float32 or wider, from both streams' raw logits [B, V]; `omega` a number or [B, 1].

    A token with −inf in either stream is banned and stays so.
    """
    if clean.dtype in (torch.float16, torch.bfloat16):
        clean, masked = clean.float(), masked.float()
    banned = torch.isneginf(clean) | torch.isneginf(masked)
    return (omega * clean + (1 - omega) * masked).masked_fill(banned, -torch.inf)
