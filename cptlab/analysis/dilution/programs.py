"""Generate programs as token ids, so that the shares are about exactly the tokens that the model read and wrote."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from cptlab.backbone import Backbone, KeyValuePrefix
from cptlab.decoding import Guidance, Sampling, Strategy, generate
from cptlab.decoding.request import Request
from cptlab.decoding.sampling import choose, uniforms
from cptlab.decoding.streams import Streams
from cptlab.errors import UserError
from cptlab.records import Prompt


@dataclass(frozen=True)
class Program:
    """The prompt of a task and the tokens that the model generated, a final end-of-text token included."""

    task_id: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass
class _Watched:
    """A decoding strategy (None: sampling) that stores the tokens of prompt and program."""

    inner: Strategy | None
    seed: int
    request: Request | None = None
    ids: list[int] = field(default_factory=list)

    def check(self, n: int, sampling: Sampling, guidance: Guidance | None) -> None:
        if self.inner is not None:
            self.inner.check(n, sampling, guidance)

    def run(
        self, backbone: Backbone, request: Request, n: int, sampling: Sampling, prefix: KeyValuePrefix | None
    ) -> list[list[int]]:
        if self.inner is None:
            self.ids = self._plain(backbone, request, sampling, prefix)
        else:
            self.ids = self.inner.run(backbone, request, n, sampling, prefix)[0]
        self.request = request
        return [self.ids]

    def _plain(
        self, backbone: Backbone, request: Request, sampling: Sampling, prefix: KeyValuePrefix | None
    ) -> list[int]:
        streams = Streams.read(backbone, [request], prefix)
        numbers = None if sampling.greedy else torch.from_numpy(uniforms(self.seed, request.task_id, 0, request.limit))
        ids: list[int] = []
        while True:
            here = slice(len(ids), len(ids) + 1)
            token = choose(streams.logits, sampling, None if numbers is None else numbers[here].to(backbone.device))
            ids.append(int(token))
            if request.is_over(backbone, ids):
                return ids
            streams.step(token)


def check_decoding(
    sampling: Sampling, guidance: Guidance | None, strategy: Strategy | None, prefix: KeyValuePrefix | None
) -> None:
    """Raise UserError for options that conflict, or that dilution does not support."""
    if strategy is not None:
        strategy.check(1, sampling, guidance)
    if guidance is not None and getattr(guidance.gate, "after_failure", False):
        raise UserError(
            "No program is run on tests here, so no gate can wait for failed ones. Use decoding/gate=always."
        )
    if guidance is not None and getattr(guidance.negative, "needs_prefix", False) and prefix is None:
        raise UserError(
            "The second stream is the prompt without the trained prefix, and there is no prefix. Give run=<a training "
            "run>, or another decoding/negative."
        )


def generate_program(
    backbone: Backbone,
    task_id: str,
    prompt: Prompt,
    sampling: Sampling,
    *,
    prefix: KeyValuePrefix | None = None,
    guidance: Guidance | None = None,
    strategy: Strategy | None = None,
    seed: int = 0,
    max_tokens: int = 400,
) -> Program:
    """Return the program that `cptlab.decoding.generate` gives as the task's first sample, of at most `max_tokens`.

    Tokens that write a healed prompt's end again (decoding/token_healing.py) belong to the prompt, but a token that also
    holds new text belongs to the program. Raises UserError if the prompt leaves no room in the context, and for a gate
    that opens after failed tests.
    """
    if guidance is not None and getattr(guidance.gate, "after_failure", False):
        raise UserError(
            "No program is run on tests here, so no gate can wait for failed ones. Use decoding/gate=always."
        )
    watched = _Watched(strategy, seed)
    sampling = replace(sampling, max_new_tokens=min(sampling.limit(prompt), max_tokens))
    ((made,),) = generate(
        backbone, [(task_id, prompt)], 1, sampling, prefix=prefix, guidance=guidance, strategy=watched, seed=seed
    )
    assert watched.request is not None
    ids, healed = watched.ids[: made.tokens], watched.request.healed
    again = 0
    while healed and again < len(ids) - 1 and len(backbone.decode(ids[: again + 1])) <= len(healed):
        again += 1
    return Program(task_id, (*watched.request.ids, *ids[:again]), tuple(ids[again:][:max_tokens]))
