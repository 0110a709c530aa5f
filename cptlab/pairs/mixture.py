"""A data set of several others, by share."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from cptlab.errors import UserError
from cptlab.records import Pair
from cptlab.tasks.splits import SPLITS


def mixture(parts: Mapping[str, Sequence[Pair]], shares: Mapping[str, float], seed: int = 0) -> list[Pair]:
    """Return as many pairs of each split as the shares allow, drawn from `parts` by seed, in the order of the parts.

    The part that has the fewest for its share gives all that it has. Of another split than training, the parts that have pairs
    of it share them. Raises UserError where a part has no training pair.
    """
    taken: dict[str, list[Pair]] = {name: [] for name in parts}
    for split in SPLITS:
        there = {name: [pair for pair in part if pair.split == split] for name, part in parts.items()}
        if split == "train" and (empty := [name for name, found in there.items() if not found]):
            raise UserError(
                f"The part {empty[0]} of the mixture has no training pair. Leave it out, or build more pairs."
            )
        there = {name: found for name, found in there.items() if found}
        total = min((len(found) / shares[name] for name, found in there.items()), default=0)
        for name, found in there.items():
            count = min(len(found), round(total * shares[name]))
            chosen = set(random.Random(f"{seed} {split} {name}").sample(range(len(found)), count))
            taken[name] += [pair for place, pair in enumerate(found) if place in chosen]
    return [pair for found in taken.values() for pair in found]
