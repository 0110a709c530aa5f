"""What every objective is: settings, the terms of a step's loss, and what they may ask of the step method that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from cptlab.settings.setting import check_settings

OVER = ("code", "differences")


class Outputs(Protocol):
    """What the policies and the reference model say of one batch of B pairs: R = 2B rows, the better programs and then the
    worse in the same order (R = B where the objective is `better_only`), C columns of code tokens.

    `where` is bool [R, C] and says which values are wanted: `mask`, `kept` or `code`, whose places are known beforehand, or any
    other, which is slower. What comes back is 0 elsewhere. `policy` is the number of one
    of the objective's policies.
    """

    mask: Tensor  # the differences m, bool [R, C]
    kept: Tensor  # code tokens that are not masked, 1 - m, bool [R, C]
    code: Tensor  # code tokens, not padding, bool [R, C]

    def scores(self, where: Tensor, policy: int = 0) -> Tensor:
        """Return log P(x_t | x_<t, I) under the policy, [R, C]."""
        ...

    def kl(self, where: Tensor, direction: str, policy: int = 0) -> Tensor:
        """Return the KL divergence between policy and reference [R, C]; `direction` is one of `losses.KL_DIRECTIONS`."""
        ...

    def reference_scores(self, where: Tensor) -> Tensor:
        """Return log P(x_t | x_<t, I) under the reference model, [R, C], without gradient."""
        ...


@dataclass(frozen=True)
class Objective:
    """What a training step minimises: the sum of `weighted(terms(outputs))`, as a mean over the pairs of the step.

    Raises UserError for a setting that cannot be.
    """

    policies: ClassVar[int] = 1  # trained together; of SVEN's two, 0 is the better one and 1 the worse one
    better_only: ClassVar[bool] = False  # whether only the better programs are run
    reference: ClassVar[str] = "none"  # what is needed of the reference model: "none", "scores", or "states" for a KL

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term in the loss, by its name; 1 for a term that is not here."""
        return {}

    def terms(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the terms of the loss before weighting, each [B], by name (`l_…`)."""
        raise NotImplementedError

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms as they enter the loss, which is their sum."""
        weights = self.weights
        return {name: weights.get(name, 1.0) * term for name, term in terms.items()}
