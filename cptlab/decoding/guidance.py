"""Guidance: mix the logits of a prompt with those of a second stream, as classifier-free guidance does.

    F(ω) = ω · f(E) + (1 − ω) · f(E')                                                        (SPA eq. 18)

Three choices make a method, and each choice is a small file with a config of its own. The negative (`negatives/`) says
what the second stream E' reads, the gate (`gates/`) says when to mix, and the rule (`rules/`) says how. ω = 1 is plain
decoding at no extra cost, whatever gate and rule.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from cptlab.settings.setting import Part, Setting, check_settings


class Negative(Protocol):
    """Says what the second stream reads. With `needs_prefix = True` it differs from the first in the prefix alone."""

    def stream(self, backbone: Backbone, prompt: Prompt) -> Stream | None:
        """Return the second stream of a prompt, or None if it would equal the first one."""
        ...


class Gate(Protocol):
    """Says when to mix. With `after_failure = True`, only programs that fail their public tests are generated again."""

    def opens(self, logits: Tensor) -> Tensor:
        """Return [B] bool, from the first stream's raw logits [B, V] of the next token."""
        ...


class Rule(Protocol):
    """Says how to mix."""

    def mix(self, clean: Tensor, second: Tensor, omega: Tensor) -> Tensor:
        """Mix both streams' raw logits [B, V] with `omega` [B, 1] to logits [B, V]. −inf in either stream stays −inf."""
        ...


@dataclass(frozen=True)
class Guidance:
    """A method with its ω. The defaults are Selective Prompt Anchoring on the task's description."""

    negative: Annotated[Negative, Part()] = field(default_factory=Masked)
    omega: Annotated[
        float, Setting("Weight ω of the first stream: 1 is plain decoding, above 1 amplifies (1.28: SPA's mean best).")
    ] = 1.28
    gate: Annotated[Gate, Part()] = Always()
    rule: Annotated[Rule, Part()] = Linear()

    def __post_init__(self) -> None:
        check_settings(self)

    def stream(self, backbone: Backbone, prompt: Prompt, has_prefix: bool) -> Stream | None:
        """Return the second stream of a prompt, or None if mixing would change nothing."""
        if getattr(self.negative, "needs_prefix", False) and not has_prefix:
            raise UserError(
                f"{type(self.negative).__name__} compares decoding with and without a prefix, and there is none. Give a trained "
                "prefix, or choose another negative."
            )
        return None if self.omega == 1 else self.negative.stream(backbone, prompt)


def kinds_of(guidances: Sequence[Guidance | None]) -> list[tuple[Gate, Rule]]:
    """Return the different (gate, rule) of these guidances."""
    kinds: list[tuple[Gate, Rule]] = []
    for one in guidances:
        if one is not None and (one.gate, one.rule) not in kinds:
            kinds.append((one.gate, one.rule))
    return kinds
