"""How long a step takes here: a few pairs near the median, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cptlab.backbone import Backbone
from cptlab.estimate.footprint import blank_prefixes, stand_in_batch
from cptlab.training.objectives import Objective
from cptlab.training.steps.choice import StepMethod
from cptlab.training.steps.token_pairs import Lengths, TokenPair

PAIRS = 3
PATIENCE = 120.0  # seconds after which no further pair is measured


@dataclass(frozen=True)
class Calibration:
    """The seconds that a step on one pair took, for pairs of these lengths."""

    lengths: tuple[Lengths, ...]
    seconds: tuple[float, ...]


def calibrate(step: Callable[[TokenPair], Any], examples: Sequence[TokenPair]) -> Calibration:
    """Time `step`, which does all that training does with a pair, on the pairs nearest to the median length, after one
    that does not count. A single pair is timed where the first takes minutes."""
    lengths = [Lengths.of(example) for example in examples]
    order = sorted(range(len(examples)), key=lambda index: lengths[index].packed)
    first = max(0, (len(order) - PAIRS + 1) // 2)
    chosen = order[first : first + PAIRS]
    _timed(step, examples[chosen[len(chosen) // 2]])
    seconds: list[float] = []
    for index in chosen:
        seconds.append(_timed(step, examples[index]))
        if sum(seconds) > PATIENCE:
            break
    return Calibration(tuple(lengths[index] for index in chosen[: len(seconds)]), tuple(seconds))


def one_pair_step(
    backbone: Backbone, prefix_length: int, objective: Objective, method: StepMethod, *, reference_on_disk: bool = True
) -> Callable[[TokenPair], None]:
    """A training step on one pair, forward and backward, that changes nothing; for `calibrate`.

    A reference on disk need not be there yet: zeros stand for it, which cost the same.
    """
    prefixes = blank_prefixes(backbone, prefix_length, objective)

    def step(example: TokenPair) -> None:
        batch = stand_in_batch(backbone, objective, method, [example], reference_on_disk)
        with torch.enable_grad():
            with method.running(backbone):
                terms = objective.weighted(objective.terms(method.outputs(backbone, batch, prefixes)))
            torch.autograd.grad(sum(terms.values()).mean(), [prefix.table for prefix in prefixes], allow_unused=True)

    return step


def _timed(step: Callable[[TokenPair], Any], example: TokenPair) -> float:
    start = time.perf_counter()
    step(example)
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # a GPU works on while Python goes on
    return time.perf_counter() - start
