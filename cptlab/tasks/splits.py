"""Split a benchmark that comes without splits: by task, 8:1:1, stratified by difficulty (CPT V-D)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction

from cptlab.errors import UserError

SPLITS = ("train", "validation", "test")


def split_tasks(
    task_ids: Sequence[str], difficulties: Sequence[str], fractions: Sequence[float] = (8, 1, 1), seed: int = 0
) -> dict[str, str]:
    """Return the split of every task: `fractions` (any scale) of each difficulty go to train, validation and test.

    Sizes are whole by largest remainder, equal remainders first to the earlier split. Which tasks go where depends on
    `seed` and the set of ids alone, not on their order. A task given twice counts once.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or sum(fractions) == 0:
        raise UserError(
            f"fractions={list(fractions)} does not divide the tasks into {', '.join(SPLITS)}. "
            "Give three numbers from 0 up, such as [8, 1, 1]."
        )
    shares = [Fraction(str(fraction)) for fraction in fractions]  # str: 0.1 is one tenth, not the float beside it
    shares = [share / sum(shares) for share in shares]
    difficulty_of = dict(zip(task_ids, difficulties, strict=True))
    splits: dict[str, str] = {}
    for difficulty in sorted(set(difficulties)):
        members = [task_id for task_id, of in difficulty_of.items() if of == difficulty]
        members.sort(key=lambda task_id: hashlib.sha256(f"{seed}/{task_id}".encode()).digest())
        exact = [share * len(members) for share in shares]
        sizes = [int(size) for size in exact]
        by_remainder = sorted(range(len(SPLITS)), key=lambda i: sizes[i] - exact[i])
        for i in by_remainder[: len(members) - sum(sizes)]:
            sizes[i] += 1
        names = [name for name, size in zip(SPLITS, sizes, strict=True) for _ in range(size)]
        splits.update(zip(members, names, strict=True))
    return {task_id: splits[task_id] for task_id in difficulty_of}
