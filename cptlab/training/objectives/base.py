"""What every objective is: settings, the terms of a step's loss, and what they may ask of the step method that runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

from torch import Tensor

from cptlab.errors import UserError
from cptlab.training.objectives import losses

OVER = ("code", "differences")
CHOICES = {
    "reduction": losses.REDUCTIONS,
    "kl_direction": losses.KL_DIRECTIONS,
    "over": OVER,
}
ABOVE_ZERO = ("beta",)  # at 0 the loss would be constant


class Outputs(Protocol):
    """One batch of B pairs as a step method has run it: R = 2B rows, the better programs and then the worse in the same
    order (R = B where the objective is `better_only`), C columns of code tokens.

    `where` is bool [R, C] and says which values are wanted; what comes back is 0 elsewhere. `prefix` is which of the
    objective's prefixes is the policy.
    """

    mask: Tensor  # the differences m, bool [R, C]
    code: Tensor  # code tokens, not padding, bool [R, C]

    def scores(self, where: Tensor, prefix: int = 0) -> Tensor:
        """log P(x_t | x_<t, I, H) [R, C]."""
        ...

    def kl(self, where: Tensor, direction: str, prefix: int = 0) -> Tensor:
        """KL divergence between policy and backbone alone [R, C]; `direction` is one of `losses.KL_DIRECTIONS`."""
        ...

    def reference_scores(self, where: Tensor) -> Tensor:
        """log P(x_t | x_<t, I) of the backbone alone [R, C], without gradient."""
        ...


@dataclass(frozen=True)
class Objective:
    """What a training step minimises: the sum of `weighted(terms(outputs))`, as a mean over the pairs of the step.

    Raises UserError for an unknown choice, and for a number that is negative, not finite, or 0 where that leaves nothing
    to train.
    """

    prefixes: ClassVar[int] = 1  # trained together; of SVEN's two, 0 is the better one and 1 the worse one
    better_only: ClassVar[bool] = False  # whether only the better programs are run
    reference: ClassVar[str] = "none"  # what is needed of the backbone alone: "none", "scores", or "states" for a KL

    def __post_init__(self) -> None:
        for entry in fields(self):
            name, value = entry.name, getattr(self, entry.name)
            if name in CHOICES:
                if value not in CHOICES[name]:
                    known = ", ".join(CHOICES[name])
                    raise UserError(f"objective.{name}={value} is unknown. Choose one of {known}.")
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and name in ABOVE_ZERO):
                least = "above 0" if name in ABOVE_ZERO else "from 0 up"
                raise UserError(f"objective.{name}={value} cannot be: it must be a number {least}. Correct that value.")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term in the loss, by its name; 1 for a term that is not here."""
        return {}

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        """The terms of the loss before weighting, each [B], by name (`l_…`)."""
        raise NotImplementedError

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms as they enter the loss, which is their sum."""
        weights = self.weights
        return {name: weights.get(name, 1.0) * term for name, term in terms.items()}
