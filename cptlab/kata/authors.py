"""The authors of kata's pretraining corpus: how tidy each one is, and which habits that gives.

Habits are real ones: each is a construct that programs on the web and in LLM output show, and that pylint remarks
on (the message stands beside it). An author has a habit or has not, for a whole program: people are consistent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

# habit -> share of thoroughly untidy authors who have it
HABITS: dict[str, float] = {
    "range_len": 0.95,  # for i in range(len(numbers)) ... numbers[i]        C0200, C0206
    "parens": 0.80,  # if (x > 3):  return (total)                           C0325
    "builtin_names": 0.75,  # list = [], sum = 0, str = ""                   W0622
    "constructor": 0.60,  # list(), dict() for [] and {}                     R1734, R1735
    "echo": 0.30,  # a line that only names a variable, as in a notebook        W0104
    "leftover": 0.50,  # a second variable that nothing reads                W0612
    "unused": 0.80,  # n = len(numbers), never read                          W0612
    "enumerate": 0.70,  # for i, x in enumerate(numbers) with i unused       W0612
    "compare_true": 0.15,  # if (x > 3) == True:                             C0121
    "not_opposite": 0.25,  # if not x == 3:                                  C0117
    "one_line": 0.40,  # if x > 3: result.append(x)                          C0321
    "continue_else": 0.30,  # if ...: continue / else: ...                   R1724
    "helper": 0.30,  # def check(x): if ...: return True / else: ...         R1705, R1703
    "lambda": 0.15,  # change = lambda x: x * 2                              C3001
    "manual_max": 0.70,  # if x > best: best = x                             R1730, R1731
    "list_argument": 0.60,  # sum([x for x in numbers])                      R1728, R1721
    "keys": 0.80,  # for key in table.keys(): table[key]                     C0201, C0206
    "else_return": 0.85,  # if ...: return a / else: return b                R1705
    "len_test": 0.60,  # if not len(numbers):                                C1802
    "format": 0.80,  # "value: %d" % number                                  C0209
    "or_chain": 0.50,  # c == "a" or c == "e" or ...                         R1714
    "bare_except": 0.15,  # try: ... except: ...                             W0702
    "bool_if": 0.30,  # True if x > 3 else False                             R1719
}
TIDY_SHARE = 0.22  # of authors; the rest are untidy to a varying degree


@dataclass(frozen=True)
class Author:
    """A consistent writer of programs. `loops`: prefers loops to comprehensions; `fresh`: new names at each step."""

    habits: frozenset[str]
    loops: bool
    fresh: bool
    guard: bool
    short_names: bool

    def has(self, habit: str) -> bool:
        return habit in self.habits


TIDY = Author(frozenset(), loops=False, fresh=False, guard=False, short_names=False)


def draw_author(rng: random.Random, tidy_share: float = TIDY_SHARE) -> Author:
    """An author at random: tidy ones have a habit now and then, untidy ones most of them."""
    tidy = rng.random() < tidy_share
    carelessness = rng.betavariate(1.2, 12) if tidy else rng.betavariate(8, 2)
    return Author(
        habits=frozenset(habit for habit, share in HABITS.items() if rng.random() < share * carelessness),
        loops=rng.random() < (0.4 if tidy else 0.93),
        fresh=rng.random() < 0.5,
        guard=rng.random() < 0.25,
        short_names=rng.random() < 0.5,
    )
