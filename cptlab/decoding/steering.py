"""Attention steering (PASTA, arXiv 2311.02262): chosen heads attend less to the prompt's tokens outside the anchors.

PASTA multiplies the attention weights of these tokens by α and divides all weights of the query by their new sum. Here
log α is added to their scores before the softmax, which gives the same weights exactly (backbone/attention_bias.py). As in the
authors' code (`scale_position="exclude"` of github.com/QingruZhang/PASTA), the weights of every query are scaled, and tokens
that the model has generated keep theirs. So do the positions of a trained prefix, which are no tokens of the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from cptlab.backbone import Backbone
from cptlab.decoding.anchors import mask_spans, span_names
from cptlab.errors import UserError
from cptlab.records import Prompt
from cptlab.settings.setting import Setting, check_settings

_ANCHORED = -1  # no token has this id


@dataclass(frozen=True)
class Steering:
    """Kept whole: the attention to tokens of the named spans. `heads` is stored as ((layer, (head, …)), …)."""

    spans: Annotated[
        str | Sequence[str],
        Setting("Spans of the prompt that are attended to: some of nl, code, tests, shots and anchor; or all."),
    ] = ("nl",)
    alpha: Annotated[
        float, Setting("Factor α on the attention to the prompt's other tokens (PASTA: 0.01).", above=0, at_most=1)
    ] = 0.01
    heads: Annotated[
        Mapping[str, Any] | None,
        Setting(
            "Heads that are steered, by layer, such as {3: [17, 7], 8: [28]}, from 0; null: all heads of all layers."
        ),
    ] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", span_names(self.spans))
        check_settings(self)
        if self.heads is not None:
            object.__setattr__(self, "heads", _heads(self.heads))

    def check(self, backbone: Backbone) -> None:
        """Raise UserError for heads that the backbone does not have."""
        layers, most = backbone.shape.num_layers, backbone.config.num_attention_heads
        for layer, heads in (self.by_layer or {}).items():
            if layer >= layers or max(heads) >= most:
                raise UserError(
                    f"decoding.steering.heads names layer {layer} with heads {list(heads)}, and {backbone.name} has "
                    f"{layers} layers of {most} heads, counted from 0. Choose others."
                )

    @property
    def by_layer(self) -> dict[int, tuple[int, ...]] | None:
        return None if self.heads is None else dict(cast(Any, self.heads))

    def bias(self, backbone: Backbone, prompt: Prompt) -> list[float]:
        """Return what is added to the scores of each token of the prompt; [] where it has no such span, or α is 1."""
        spans = [span for span in prompt.spans if span.name in self.spans]
        if not spans or self.alpha == 1:
            return []
        ids, marked = mask_spans(backbone.tokenizer, prompt.text, spans, _ANCHORED)
        kept = marked[backbone.text_tokens.prompt_part(ids)]
        return [0.0 if token == _ANCHORED else math.log(self.alpha) for token in kept]


def _heads(given: Mapping[Any, Any]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    found = []
    for layer, heads in given.items():
        several = isinstance(heads, Sequence) and not isinstance(heads, str)
        numbers = [layer, *heads] if several else []
        if len(numbers) < 2 or not all(str(number).isdecimal() for number in numbers):
            raise UserError(
                f"decoding.steering.heads gives {heads!r} for layer {layer!r}. Give each layer a list of heads, counted "
                "from 0, such as {3: [17, 7], 8: [28]}."
            )
        found.append((int(layer), tuple(sorted({int(head) for head in heads}))))
    if not found:
        raise UserError("decoding.steering.heads names no head. Name some, or set it to null for all of them.")
    return tuple(sorted(found))
