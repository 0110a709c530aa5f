"""What one training step minimises: the terms of both stages and their weights (CPT eq. 12 and 13)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cptlab.errors import UserError
from cptlab.training import losses


@dataclass(frozen=True)
class Objective:
    """CPT's weights w1, w2, w3 of eq. 12, and the two switches that turn the printed losses into SVEN's.

    `reduction` applies to L_LM, L_KL and the second stage's NLL; a mean is taken over the selected positions of each
    program, and L_KL stays the sum of that of x_a and that of x_b. Raises UserError for an unknown switch.
    """

    w_lm: float = 1.0
    w_rank: float = 4.0
    w_kl: float = 1.6
    reduction: str = "sum"
    kl_direction: str = "policy_reference"

    def __post_init__(self) -> None:
        for name, known in (("reduction", losses.REDUCTIONS), ("kl_direction", losses.KL_DIRECTIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"objective.{name}={getattr(self, name)} is unknown. Choose one of {', '.join(known)}.")

    def comparative_terms(self, policy: Tensor, reference: Tensor, tokens: Tensor, mask: Tensor, code: Tensor) -> dict:
        """The terms of eq. 12 before weighting: `l_rank`, `l_lm`, `l_kl`, each [B], for B pairs.

        `policy` and `reference` are log-probabilities [2B, C, V]: the better programs, then the worse ones in the same
        order. `tokens` are the code tokens [2B, C]; `mask` the differences m and `code` the code tokens, bool [2B, C].
        """
        scores = losses.token_log_probs(policy, tokens)
        better, worse = losses.sequence_score(scores, mask).chunk(2)
        divergence = losses.position_kl(policy, reference, self.kl_direction)
        kl_better, kl_worse = losses.kl_loss(divergence, code & ~mask, self.reduction).chunk(2)
        half = len(scores) // 2
        return {
            "l_rank": losses.rank_loss(better, worse),
            "l_lm": losses.lm_loss(scores[:half], mask[:half], self.reduction),
            "l_kl": kl_better + kl_worse,
        }

    def nll_terms(self, policy: Tensor, tokens: Tensor, code: Tensor) -> dict:
        """The one term of the second stage, `l_nll` [B], from log-probabilities [B, C, V] of the better programs."""
        return {"l_nll": losses.nll_loss(losses.token_log_probs(policy, tokens), code, self.reduction)}

    def weighted(self, terms: dict) -> dict:
        """The terms as they enter the loss, which is their sum (eq. 12); the second stage's has weight 1 (eq. 13)."""
        weights = {"l_lm": self.w_lm, "l_rank": self.w_rank, "l_kl": self.w_kl, "l_nll": 1.0}
        return {name: weights[name] * term for name, term in terms.items()}
