"""A request: one prompt as the engine decodes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cptlab.backbone import Backbone
from cptlab.decoding.guidance import Guidance
from cptlab.decoding.negatives.stream import Stream
from cptlab.decoding.steering import Steering
from cptlab.decoding.stopping_criteria import StoppingCriteria
from cptlab.decoding.token_healing import Rest


@dataclass(frozen=True)
class Request:
    """One prompt.

    `index` is its place in the caller's list, `ids` are its tokens, `second` is its second stream, and `limit` is the
    number of new tokens that fit. `rest` is the end of the prompt's text that `ids` lack and the model must write first
    (token_healing.py). `code` is the part of the prompt that belongs to the program, and `stopping` says where its text ends. `bias` is
    what `steering` adds to the attention scores of the positions of prefix and prompt.
    """

    index: int
    task_id: str
    ids: list[int]
    second: Stream | None
    guidance: Guidance | None
    limit: int
    rest: Rest | None = None
    code: str = ""
    stopping: StoppingCriteria = StoppingCriteria()
    steering: Steering | None = None
    bias: Sequence[float] = ()

    @property
    def healed(self) -> str:
        """The text of `rest`, which is not part of the completion."""
        return self.rest.text.decode() if self.rest else ""

    def is_over(self, backbone: Backbone, ids: Sequence[int]) -> bool:
        """Return whether decoding stops after the new tokens `ids`: by a token, at the limit, or by the text."""
        if len(ids) >= self.limit or (ids and ids[-1] in backbone.eos_ids):
            return True
        return self.stopping.end(self.code, backbone.decode(ids)[len(self.healed) :]) >= 0
