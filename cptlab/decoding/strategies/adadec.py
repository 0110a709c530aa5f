"""AdaDec: greedy decoding that looks ahead where the model is unsure. He et al., https://arxiv.org/abs/2506.08980

If the entropy of the next token exceeds a threshold, a few greedy steps follow each of the likeliest candidates. The
candidate with the highest mean log-probability over itself and these steps is taken.
Two things of the paper are not here: learning the threshold from reference solutions (the paper fits one per model), and
ending a lookahead by its text, such as a line that is not indented. Here only an end-of-text token ends one early.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from cptlab.backbone import Backbone, KeyValuePrefix
from cptlab.decoding.gates.entropy import entropy
from cptlab.decoding.request import Request
from cptlab.decoding.sampling import Sampling
from cptlab.decoding.streams import Streams
from cptlab.errors import UserError
from cptlab.settings.setting import Setting, check_settings


@dataclass
class _Branch:
    """A candidate and the greedy tokens behind it. `unsure` says of each token whether its entropy was too high."""

    tokens: list[int]
    log_probs: list[float]
    unsure: list[bool] = field(default_factory=lambda: [False])

    @property
    def score(self) -> float:
        return sum(self.log_probs) / len(self.log_probs)

    def sure(self) -> list[int]:
        """Return the tokens before the first one at which the model is unsure again."""
        return self.tokens[: self.unsure.index(True) if True in self.unsure else None]


@dataclass(frozen=True)
class AdaDec:
    """Look ahead where the model is unsure.

    With guidance, entropy and scores are those of the mixed logits. A lookahead goes past `max_new_tokens`, which only
    cuts the program, but not past the context.
    """

    threshold: Annotated[
        float,
        Setting("Look ahead above this entropy, in nats; 1 is the authors' fixed-threshold baseline.", at_least=0),
    ] = 1.0
    candidates: Annotated[int, Setting("How many of the likeliest tokens to compare.", at_least=1)] = 3
    lookahead: Annotated[int, Setting("Greedy steps behind each candidate; 0: greedy decoding.", at_least=0)] = 5

    def __post_init__(self) -> None:
        check_settings(self)

    def check(self, n: int, sampling: Sampling, guidance) -> None:
        """Raise UserError if AdaDec cannot run with these options."""
        if n != 1:
            raise UserError(f"AdaDec gives one program per task, but n is {n}. Set n to 1.")
        sampling.refuse_chance("AdaDec")

    @torch.inference_mode()
    def run(
        self, backbone: Backbone, request: Request, n: int, sampling: Sampling, prefix: KeyValuePrefix | None
    ) -> list[list[int]]:
        """Return the new token ids of the one program, with the end-of-text token if there is one."""
        streams = Streams.read(backbone, [request], prefix)
        room = _room(backbone, request, prefix)
        ids: list[int] = []
        unread: list[int] = []
        while not request.is_over(backbone, ids):
            for token in unread:
                streams.step(torch.tensor([token], device=streams.logits.device))
            if self._unsure(streams.logits)[0]:
                branch, ahead = self._best_branch(streams, min(self.lookahead, room - len(ids) - 1), backbone.eos_ids)
                unread = branch.sure()
                ids += unread
                if ahead is not None and len(unread) == len(branch.tokens):
                    streams, unread = ahead, unread[-1:]  # nothing is computed twice
            else:
                unread = streams.logits.argmax(-1).tolist()
                ids += unread
        return [ids[: request.limit]]

    def _unsure(self, logits: Tensor) -> list[bool]:
        """Return whether the entropy of each row of logits [R, V] exceeds the threshold."""
        return (entropy(logits) > self.threshold).tolist()

    def _best_branch(self, streams: Streams, steps: int, eos_ids: frozenset[int]) -> tuple[_Branch, Streams | None]:
        """Return the branch with the best score, and the streams that have read all of it but its last token.

        Among equals, the branch of the likelier candidate is best. The streams are None if the branch has ended.
        """
        likeliest, order = _log_probs(streams.logits)[0].sort(descending=True, stable=True)
        pairs = zip(order[: self.candidates].tolist(), likeliest[: self.candidates].tolist())
        branches = [_Branch([token], [score]) for token, score in pairs if score > -torch.inf]
        device = streams.logits.device
        ahead = streams.copy(torch.zeros(len(branches), dtype=torch.long, device=device))
        live = branches  # row i of `ahead` has read all tokens of live[i] but the last
        for _ in range(steps):
            going = [i for i, branch in enumerate(live) if branch.tokens[-1] not in eos_ids]
            if not going:
                break
            if len(going) < len(live):
                ahead.select(torch.tensor(going, device=device))
                live = [live[i] for i in going]
            ahead.step(torch.tensor([branch.tokens[-1] for branch in live], device=device))
            scores, tokens = _log_probs(ahead.logits).max(-1)
            steps_taken = zip(live, tokens.tolist(), scores.tolist(), self._unsure(ahead.logits))
            for branch, token, score, unsure in steps_taken:
                branch.tokens.append(token)
                branch.log_probs.append(score)
                branch.unsure.append(unsure)
        best = max(branches, key=lambda branch: branch.score)
        if best not in live:
            return best, None
        return best, ahead.select(torch.tensor([live.index(best)], device=device))


def _log_probs(logits: Tensor) -> Tensor:
    """Return the log-softmax in float32 or wider."""
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _room(backbone: Backbone, request: Request, prefix: KeyValuePrefix | None) -> int:
    """Return how many new tokens the context can hold behind the longer of the prompt's streams."""
    length = 0 if prefix is None else prefix.length
    used = length + len(request.ids)
    if request.second is not None:
        used = max(used, len(request.second.ids) + (length if request.second.with_prefix else 0))
    return backbone.context_length - used
