"""From weighted messages to a score from 0 to 10, higher is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cptlab.errors import UserError
from cptlab.records import Message

# arXiv 2506.02211: the weights of severities, and 1 / (1 + weighted sum), which is 10 times that here
SEVERITY_WEIGHTS = {"info": 0.5, "low": 1.0, "medium": 2.5, "high": 5.0, "critical": 10.0}


def density(weighted: float, statements: int) -> float:
    """Return max(0, 10 - 10 weighted / statements): pylint's formula."""
    return max(0.0, 10.0 - weighted / statements * 10)


def decay(weighted: float) -> float:
    """Return 10 / (1 + weighted): the length of the program does not matter."""
    return 10.0 / (1.0 + weighted)


def weighted_sum(messages: Sequence[Message], weights: Mapping[str, float]) -> float:
    """Add up the weights of messages. A key is a severity or what an id begins with; the longest that fits counts, else 1."""
    return sum(weight_of(message, weights) for message in messages)


def weight_of(message: Message, weights: Mapping[str, float]) -> float:
    keys = [key for key in weights if message.id.startswith(key)]
    if keys:
        return weights[max(keys, key=len)]
    return weights.get(message.severity, 1.0)


def checked_weights(weights: Mapping[str, float] | None, usual: Mapping[str, float], name: str) -> dict[str, float]:
    """Return the weights over the usual ones. Raises UserError for one that is no number from 0 up."""
    for key, weight in (weights or {}).items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight >= 0:
            raise UserError(f"{name}: the weight of {key} must be a number from 0 up, got {weight!r}. Correct it.")
    return {**usual, **{str(key): float(weight) for key, weight in (weights or {}).items()}}
