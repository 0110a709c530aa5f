"""Beam search, with the scores, the end and the order of `transformers.generate(num_beams=…)`.

The steps follow `GenerationMixin._beam_search` of transformers 5 for one prompt, in the same float32 arithmetic, so that
the programs are the same. Tokens are scored by the log-softmax of the logits. With guidance these are the mixed logits,
and the second stream follows its hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from cptlab.backbone import Backbone, KeyValuePrefix
from cptlab.decoding.request import Request
from cptlab.decoding.sampling import Sampling
from cptlab.decoding.stopping_criteria import ended_by_token
from cptlab.decoding.streams import Streams
from cptlab.errors import UserError
from cptlab.settings.setting import Setting, check_settings

NEVER_CHOSEN = -1e9  # the score of a candidate that must not be chosen; finite, as in transformers


@dataclass(frozen=True)
class Beams:
    """Keep the `width` likeliest beginnings, and return the n best programs, the best first.

    The score of a finished program is its log-probability / length ** `length_penalty`, with the length in new tokens.
    As in transformers, `width` 1 is greedy decoding, and a stop text ends a program. The n programs are different
    sequences of tokens, but two that end by their text may become equal when that end is cut off.
    """

    width: Annotated[int, Setting("Beginnings that are kept, at least n.", at_least=1)] = 4
    length_penalty: Annotated[float, Setting("Exponent of the length that a program's score is divided by.")] = 1.0
    early_stopping: Annotated[
        bool | Literal["never"],
        Setting(
            "true: the search ends with `width` finished programs; false: when the best beginning, at its length, is no "
            "better than the worst of them; never: when it cannot become better."
        ),
    ] = False

    def __post_init__(self) -> None:
        check_settings(self)

    def check(self, n: int, sampling: Sampling, guidance) -> None:
        """Raise UserError if beam search cannot run with these options."""
        if n > self.width:
            raise UserError(
                f"n is {n}, but a beam search of width {self.width} finds at most {self.width} programs. "
                f"Set decoding.strategy.width to {n}, or n to at most {self.width}."
            )
        sampling.refuse_chance("Beam search")

    @torch.inference_mode()
    def run(
        self, backbone: Backbone, request: Request, n: int, sampling: Sampling, prefix: KeyValuePrefix | None
    ) -> list[list[int]]:
        """Return the new token ids of the n best programs of a prompt, with the end-of-text token if there is one."""
        streams = Streams.read(backbone, [request], prefix)
        device = streams.logits.device
        streams.select(torch.zeros(self.width, dtype=torch.long, device=device))
        eos = torch.tensor(sorted(backbone.eos_ids), dtype=torch.long, device=device)
        # enough candidates that `width` of them go on even if all others end here
        kept = max(2, 1 + len(eos)) * self.width
        in_beam = torch.arange(kept, device=device) < self.width

        running = torch.empty(self.width, 0, dtype=torch.long, device=device)
        scores = torch.full([self.width], NEVER_CHOSEN, device=device)
        scores[0] = 0  # at first all rows are the same
        best: list[list[int]] = [[]] * self.width
        best_scores = torch.full([self.width], NEVER_CHOSEN, device=device)
        finished = torch.zeros(self.width, dtype=torch.bool, device=device)

        for length in range(1, request.limit + 1):
            log_probs = streams.logits.float().log_softmax(-1) + scores[:, None]
            top, places = log_probs.flatten().topk(kept)
            rows, tokens = places // log_probs.shape[1], places % log_probs.shape[1]
            candidates = torch.cat([running[rows], tokens[:, None]], dim=1)
            ends = ended_by_token(tokens, eos, length, request.limit)
            ends |= _ended_by_text(backbone, request, candidates)

            # only a program that ends within the beam counts; the other candidates are there to go on with
            ends_here = ends & in_beam
            final = top / length**self.length_penalty + ~ends_here * NEVER_CHOSEN
            best_scores, order = torch.cat([best_scores, final]).topk(self.width)
            programs = best + candidates.tolist()
            best, finished = [programs[i] for i in order.tolist()], torch.cat([finished, ends_here])[order]

            scores, chosen = (top + ends * NEVER_CHOSEN).topk(self.width)
            if bool(ends.all()) or self._is_over(length, request.limit, scores, best_scores, finished):
                break
            running = candidates[chosen]
            streams.select(rows[chosen])
            streams.step(tokens[chosen])

        # if a rule bans so much that fewer than n programs are possible, the best one replaces the missing ones
        return [ids if done else best[0] for ids, done in zip(best[:n], finished.tolist())]

    def _is_over(self, length: int, limit: int, scores, best_scores, finished) -> bool:
        """Return whether going on from beginnings with these `scores` [width] can improve nothing."""
        if bool(finished.all()) and (self.early_stopping is True or self.width == 1):
            return True
        reach = limit if self.early_stopping == "never" and self.length_penalty > 0 else length
        worst = torch.where(finished, best_scores.min(), NEVER_CHOSEN)
        return not bool((scores[0] / reach**self.length_penalty > worst).any())


def _ended_by_text(backbone: Backbone, request: Request, candidates: torch.Tensor) -> torch.Tensor:
    """Return which of the programs [K, t] end by their text: at a stop text, or with their function."""
    ends = [False] * len(candidates)
    if request.stopping:
        texts = [backbone.decode(ids)[len(request.healed) :] for ids in candidates.tolist()]
        ends = [request.stopping.end(request.code, text) >= 0 for text in texts]
    return torch.tensor(ends, device=candidates.device)
