"""One mixture, many methods: the logits of the prompt against those of a second, 'negative' stream.

    F(ω) = ω · f(E) + (1 − ω) · f(E')                                                        (SPA eq. 18)

Three choices make a method, each a small file and a config of its own: which second stream E' (`negatives/`), when to
mix (`gates/`), and how (`rules/`). ω = 1 is the plain model at no extra cost, whatever gate and rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Protocol

from torch import Tensor

from cptlab.backbone import Backbone
from cptlab.decoding.gates.always import Always
from cptlab.decoding.negatives.masked import Masked
from cptlab.decoding.negatives.stream import Stream
from cptlab.decoding.rules.linear import Linear
from cptlab.errors import UserError
from cptlab.records import Prompt
from cptlab.settings.setting import Setting, check_settings


class Negative(Protocol):
    """Which second stream. May have `needs_prefix = True`: it differs from the first in the prefix alone."""

    def stream(self, backbone: Backbone, prompt: Prompt) -> Stream | None:
        """The tokens of the second stream; None where it would be the first one again."""


class Gate(Protocol):
    """When to mix. May have `after_failure = True`: only programs that failed their public tests are generated again."""

    def opens(self, logits: Tensor) -> Tensor:
        """[B] bool, from the first stream's raw logits [B, V] of what follows."""


class Rule(Protocol):
    """How to mix."""

    def mix(self, clean: Tensor, second: Tensor, omega: Tensor) -> Tensor:
        """Mixed logits [B, V], of both streams' raw logits [B, V] and `omega` [B, 1]. −inf in either stream stays −inf."""


@dataclass(frozen=True)
class Guidance:
    """A second stream with its weight. The defaults are Selective Prompt Anchoring on the task's description."""

    negative: Negative = field(default_factory=Masked)
    omega: Annotated[
        float, Setting("Weight ω of the first stream: 1 is plain decoding, above 1 amplifies (1.28: SPA's mean best).")
    ] = 1.28
    gate: Gate = Always()
    rule: Rule = Linear()

    def __post_init__(self) -> None:
        check_settings(self)

    def stream(self, backbone: Backbone, prompt: Prompt, has_prefix: bool) -> Stream | None:
        """The second stream of a prompt; None where mixing would change nothing, which then costs nothing."""
        if getattr(self.negative, "needs_prefix", False) and not has_prefix:
            raise UserError(
                f"{type(self.negative).__name__} compares with and without a prefix, and there is none. Give a trained "
                "prefix, or choose another negative."
            )
        return None if self.omega == 1 else self.negative.stream(backbone, prompt)
