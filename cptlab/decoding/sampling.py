"""Sample the next token from logits: temperature, top-k, top-p, and reproducible random numbers.

A token is drawn by inverting the cumulative distribution at one uniform number, and that number is a pure function of
(seed, task, sample, position). So a program does not depend on the programs that share its batch, except where a
uniform number falls within rounding error of a boundary between two tokens.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from cptlab.decoding.stopping_criteria import StoppingCriteria
from cptlab.errors import UserError
from cptlab.records import Prompt
from cptlab.settings.setting import Setting, check_settings

LIKELIEST = 256  # tokens among which a step without looks searches: larger nuclei cost a step of their own
_NUCLEUS_GUESS = 64  # a nucleus is rarely larger; rows where it is are sorted in full
_BLOCK = 128  # tokens of which one maximum is taken
_IN_CACHE = 1 << 21  # numbers, 8 MB in float32, that a CPU samples from at a time


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens and when to stop. The defaults are CPT's (V-C: T 0.4, top-p 0.95).

    Temperature 0 is greedy. top_p 1 and top_k 0 filter nothing. Filters apply in the order of transformers:
    temperature, top_k, top_p. Tokens that tie with the last one kept are kept, too. When a program ends, says
    stopping_criteria.py, and what `heal` does, token_healing.py.
    """

    temperature: Annotated[float, Setting("Temperature of the sampling; 0 is greedy.", at_least=0)] = 0.4
    top_p: Annotated[float, Setting("Mass of the likeliest tokens to sample from; 1: of all.", above=0, at_most=1)] = (
        0.95
    )
    top_k: Annotated[int, Setting("How many of the likeliest tokens to sample from; 0: all.", at_least=0)] = 0
    max_new_tokens: Annotated[
        int | None,
        Setting(
            "Tokens of a program at most; null: as many as the benchmark allows (kata 256, the others 768 and more).",
            at_least=1,
        ),
    ] = None
    stop: Annotated[
        tuple[str, ...], Setting("Texts that end a program and are cut off, beside those of the benchmark.")
    ] = ()
    function_end: Annotated[bool, Setting("A program ends with the function that its prompt opens.")] = True
    heal: Annotated[
        bool, Setting("A prompt that ends within what would be one token is continued from before that token.")
    ] = True

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "stop", tuple(self.stop))

    def refuse_chance(self, strategy: str) -> None:
        """Raise UserError if a temperature is set, because `strategy` draws no random tokens."""
        if not self.greedy:
            raise UserError(
                f"{strategy} draws no random tokens, but the temperature is {self.temperature}. "
                "Set decoding.sampling.temperature to 0, or decode without a strategy."
            )

    def stopping(self, prompt: Prompt) -> StoppingCriteria:
        return StoppingCriteria((*prompt.stops, *self.stop), self.function_end)

    def limit(self, prompt: Prompt) -> int:
        """Return how many tokens the program of a prompt has at most."""
        return prompt.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def uniforms(seed: int, task_id: str, sample: int, length: int) -> np.ndarray:
    """Return `length` numbers in [0, 1), one per position. The first ones do not depend on `length`.

    Philox is counter-based (Salmon et al. 2011): the key is a hash of (seed, task_id), the high words of the
    counter hold the sample, and its low words run with the position. numpy guarantees that raw bits never change.
    """
    digest = hashlib.blake2b(json.dumps([seed, task_id]).encode(), digest_size=16).digest()
    bits = np.random.Philox(key=np.frombuffer(digest, "<u8").astype(np.uint64), counter=[0, 0, sample, 0])
    return (bits.random_raw(length) >> np.uint64(11)) * 2.0**-53


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return the distribution [B, V] to draw from, for `logits` [B, V]: float32, not renormalised after top-p."""
    probs = _before_top_p(logits, sampling)
    return _nucleus(probs, sampling.top_p) if sampling.top_p < 1 else probs


def _before_top_p(logits: Tensor, sampling: Sampling) -> Tensor:
    scores = logits.float() / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        smallest = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < smallest, -torch.inf)
    return scores.softmax(-1)


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Return `probs` [B, V] with zeros outside of the smallest set of likeliest tokens that holds a mass of `top_p`."""
    return probs.masked_fill(probs < _last_before(probs.sort(descending=True).values, top_p), 0)


def _last_before(descending: Tensor, top_p: float) -> Tensor:
    """Return the last entry of each row whose predecessors sum to less than top_p [B, 1]."""
    before = descending.cumsum(-1, dtype=torch.float64) - descending
    return descending.gather(-1, (before < top_p).sum(-1, keepdim=True) - 1)


def _likeliest(probs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the `size` highest entries of probs [B, V] in falling order and their token ids, both [B, size].

    A large vocabulary is cut into blocks. No entry outside of the `size` blocks with the highest maxima is needed.
    """
    blocks, tail = divmod(probs.shape[-1], _BLOCK)
    if blocks <= 4 * size:
        return probs.topk(size)
    best = probs[:, : blocks * _BLOCK].unflatten(1, (blocks, _BLOCK)).amax(-1).topk(size, sorted=False).indices
    ids = (best[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=probs.device)).flatten(1)
    if tail:
        last = torch.arange(blocks * _BLOCK, probs.shape[-1], device=probs.device)
        ids = torch.cat([ids, last.expand(len(probs), -1)], dim=1)
    values, places = probs.gather(1, ids).topk(size)
    return values, ids.gather(1, places)


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """Return token ids [B]: the inverse of each row's cumulative distribution, in order of token id, at `uniform` [B].

    `probs` [B, V] need not sum to one. A token of probability zero is never drawn.
    """
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1]
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> Tensor:
    """Choose the next tokens [B] for raw logits [B, V]. `uniform` [B] float64 may be None for greedy sampling only.

    On a CPU a few rows at a time are sampled, so that what is computed for them stays in the processor's cache.
    """
    if sampling.greedy:
        return logits.argmax(-1)
    assert uniform is not None
    rows = max(1, _IN_CACHE // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
    parts = zip(logits.split(rows), uniform.split(rows), strict=True)
    return torch.cat([_sample(part, sampling, numbers) for part, numbers in parts])


def choose_without_looking(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> Tensor:
    """Choose the same tokens as `choose`, with the same operators whatever the logits are, so that a graph can do it."""
    if sampling.greedy:
        return logits.argmax(-1)
    assert uniform is not None
    return draw(probabilities(logits, sampling), uniform)


def _sample(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Return draw(probabilities(logits, sampling), uniform), the same token ids [B], without sums over all tokens.

    Tokens outside of the nucleus have probability zero and change no sum. So where the likeliest tokens hold the
    nucleus, and all tokens that tie with its last one, only they are looked at.
    """
    if sampling.top_p == 1:
        return draw(probabilities(logits, sampling), uniform)
    probs = _before_top_p(logits, sampling)
    tokens, sure = _drawn_among(probs, sampling.top_p, uniform, _NUCLEUS_GUESS)
    wide = (~sure).nonzero()[:, 0]
    if len(wide):
        tokens[wide] = draw(_nucleus(probs[wide], sampling.top_p), uniform[wide])
    return tokens


def choose_among_likeliest(
    logits: Tensor, sampling: Sampling, uniform: Tensor, likeliest: int = LIKELIEST
) -> tuple[Tensor, Tensor]:
    """Choose the same tokens [B] as `choose_without_looking`, in the same manner, where the second result [B] is True: where
    the `likeliest` tokens hold the nucleus. No vocabulary is sorted for it. For 0 < top_p < 1 and a temperature above 0.
    """
    return _drawn_among(_before_top_p(logits, sampling), sampling.top_p, uniform, likeliest)


def _drawn_among(probs: Tensor, top_p: float, uniform: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Draw from the nucleus of probs [B, V] among the `size` highest entries; tell where it is known to be all there."""
    likeliest, ids = _likeliest(probs, min(size, probs.shape[-1]))
    smallest = _last_before(likeliest, top_p)
    ids, order = ids.sort(-1)
    nucleus = likeliest.masked_fill(likeliest < smallest, 0).gather(1, order)
    tokens = ids.gather(1, draw(nucleus, uniform)[:, None])[:, 0]
    return tokens, likeliest[:, -1] < smallest[:, 0]
