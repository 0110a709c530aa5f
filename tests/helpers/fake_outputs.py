"""Outputs made of full random log-probabilities: what an objective sees of a step method, without one."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

V = 11


@dataclass
class FakeOutputs:
    """Logits [R, C, V] of each policy and of the backbone alone, `tokens` [R, C].

    Refuses what a step method could not answer: positions outside the code, and values of the backbone alone beyond what
    `reference` ("none", "scores", "states") says is at hand. Padding is NaN, so nothing of it can be used unseen.
    """

    policies: list[Tensor]
    backbone: Tensor
    tokens: Tensor
    mask: Tensor
    code: Tensor
    reference: str = "states"
    lengths: list[int] = field(default_factory=list)

    @property
    def kept(self) -> Tensor:
        return self.code & ~self.mask

    def scores(self, where: Tensor, policy: int = 0) -> Tensor:
        return self._placed(self._token_scores(self.policies[policy], where), where)

    def kl(self, where: Tensor, direction: str, policy: int = 0) -> Tensor:
        assert self.reference == "states"
        p, q = self.policies[policy][where].log_softmax(-1), self.backbone[where].log_softmax(-1)
        of, to = {"policy_reference": (p, q), "reference_policy": (q, p)}[direction]
        return self._placed(torch.nn.functional.kl_div(to, of, reduction="none", log_target=True).sum(-1), where)

    def reference_scores(self, where: Tensor) -> Tensor:
        assert self.reference in ("scores", "states")
        return self._placed(self._token_scores(self.backbone, where), where)

    def _token_scores(self, logits: Tensor, where: Tensor) -> Tensor:
        return -torch.nn.functional.cross_entropy(logits[where], self.tokens[where], reduction="none")

    def _placed(self, values: Tensor, where: Tensor) -> Tensor:
        assert where.dtype == torch.bool and where.shape == self.code.shape and not (where & ~self.code).any()
        return values.new_zeros(where.shape).masked_scatter(where, values)

    def better(self) -> "FakeOutputs":
        """The better programs alone, as a step method gives them to an objective that is `better_only`."""
        half = len(self.code) // 2
        parts = (self.backbone, self.tokens, self.mask, self.code)
        return FakeOutputs(
            [p[:half] for p in self.policies], *(x[:half] for x in parts), self.reference, self.lengths[:half]
        )


def fake_outputs(pairs=3, width=9, seed=0, empty_rows=(), policies=2, scale=2.0, dtype=torch.float64) -> FakeOutputs:
    """Random programs of 3 to `width` code tokens; the masks of `empty_rows` mark nothing. The logits learn."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * pairs
    lengths = [int(torch.randint(3, width + 1, (), generator=generator)) for _ in range(rows)]
    code = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    mask = (torch.rand(rows, width, generator=generator) < 0.4) & code
    mask[:, 0] = True  # none is empty by chance
    for row in empty_rows:
        mask[row] = False
    logits = [
        scale * torch.randn(rows, width, V, generator=generator, dtype=torch.float64).to(dtype)
        for _ in range(policies + 1)
    ]
    for each in logits:
        each[~code] = float("nan")
    tokens = torch.randint(0, V, (rows, width), generator=generator)
    trained = [each.requires_grad_() for each in logits[1:]]
    return FakeOutputs(trained, logits[0], tokens, mask, code, lengths=lengths)
