"""What changes pairs beside Algorithm 1: CHES, aligned names, mixtures."""

import ast
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cptlab.errors import UserError
from cptlab.pairs import MixedPairs, SelectionOptions, aligned_names, mixture, select_pair, token_masks
from cptlab.pairs.ches import ches_scores
from cptlab.records import Completion, Prompt, Quality, Task, Verdict

BETTER = """\
def solve(numbers, limit=3):
    result = []
    for item in numbers:
        if item > limit:
            result.append(item)
    return result
"""
WORSE = """\
def solve(numbers, limit=3):
    output = list()
    for x in numbers:
        if x > limit:
            output.append(x)
        else:
            pass
    return output
"""


def run(program: str, *given: Any) -> Any:
    scope: dict = {}
    exec(program, scope)  # our own text
    return scope["solve"](*given)


def test_aligned_names_leave_the_real_differences():
    aligned = aligned_names(BETTER, WORSE)
    assert aligned == WORSE.replace("output", "result").replace("x", "item")
    before, after = (sum(map(sum, token_masks(BETTER.split(), program.split()))) for program in (WORSE, aligned))
    assert after < before
    assert aligned_names(BETTER, BETTER) == BETTER


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (
            "def solve(a):\n    b = a\n    return b\n",
            "def solve(a):\n    list = a\n    return list\n",
        ),  # W0622 is to stay
        ("def solve(a):\n    list = a\n    return list\n", "def solve(a):\n    b = a\n    return b\n"),
        ("def solve(b):\n    return b\n", "def solve(a):\n    return a\n"),  # tests may name a parameter
        ("def solve(a):\n    b = a\n    return b\n", "def solve(a):\n    c = a\n    return f'{c}'\n"),
        ("def solve(a):\n    b = a\n    return b\n", "def solve(a):\n    c = dict(c=a)\n    return c\n"),
        ("def solve(a):\n    b = a\n    return b\n", "def solve(a):\n    c = a\n    return c.c\n"),
        ("def solve(a):\n    b = a\n    return b\n", "def solve(a:\n"),
    ],
)
def test_names_that_must_stay_do(better, worse):
    assert aligned_names(better, worse) == worse


def test_names_are_found_behind_what_ends_a_line_elsewhere():
    better, worse = (
        f"\x0cdef solve(a):\n    # \u2028\n    {name} = '\x85'\n    return {name} + a\n" for name in ("x", "yes")
    )
    assert aligned_names(better, worse) == better


def test_a_name_that_another_variable_keeps_is_not_given_twice():
    better = "def solve(a):\n    x = a + 1\n    return x\n"
    worse = "def solve(a):\n    y = a + 1\n    x = y * 2\n    x = x - y\n    return y + x * 0\n"
    aligned = aligned_names(better, worse)
    assert run(aligned, 4) == run(worse, 4) == 5
    assert len({node.id for node in ast.walk(ast.parse(aligned)) if isinstance(node, ast.Name)}) == 3
    swapped = (
        "def solve(a):\n    x = a\n    y = x\n    return y\n",
        "def solve(a):\n    y = a\n    x = y\n    return x\n",
    )
    assert aligned_names(*swapped) == swapped[0]


def test_ches_is_that_of_its_definition_and_the_lowest_is_taken():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(5, 7))
    for i in range(5):
        for j in range(5):
            better, worse = embeddings[i], embeddings[j]
            assert ches_scores(embeddings)[i, j] == pytest.approx(better @ worse - np.linalg.norm(better) ** 2)
    task = Task("t/1", "t", "train", "easy", "call", Prompt("def f(x):"), "f")
    lines = ["    total = 0", "    total = 1", "    total = 2", "    total = 3", "    total = 4"]
    completions = [Completion("t/1", i, line, line, 3, True) for i, line in enumerate(lines)]
    qualities = [Quality(float(score), 9, False) for score in (9, 2, 8, 4, 6)]
    verdicts = [Verdict("passed", public_passed=1, public_total=1)] * 5
    choice, _ = select_pair(
        task, completions, qualities, verdicts, SelectionOptions(prefer="ches"), lambda places: embeddings[places]
    )
    scores = ches_scores(embeddings)
    gap = {(i, j) for i in range(5) for j in range(5) if qualities[i].score - qualities[j].score > 1}
    assert choice is not None
    assert (choice.better, choice.worse) == min(gap, key=lambda pair: scores[pair])


def pairs_of(name: str, train: int, validation: int = 0) -> list[Any]:
    splits = ["train"] * train + ["validation"] * validation
    return [SimpleNamespace(name=name, number=i, split=split) for i, split in enumerate(splits)]


def test_a_mixture_has_the_shares_and_as_many_pairs_as_they_allow():
    rng = random.Random(0)
    for _ in range(30):
        sizes = {name: rng.randint(1, 60) for name in "abc"}
        shares = {"a": 0.5, "b": 0.3, "c": 0.2}
        parts = {name: pairs_of(name, size, size // 3) for name, size in sizes.items()}
        found = mixture(parts, shares, seed=1)
        counts = Counter(pair.name for pair in found if pair.split == "train")
        most = min(sizes[name] / shares[name] for name in shares)
        for name, share in shares.items():
            assert abs(counts[name] - share * most) <= 0.5 and counts[name] <= sizes[name]
        keys = [(pair.name, pair.number) for pair in found]
        assert keys == sorted(set(keys)) and found == mixture(parts, shares, seed=1)
    assert mixture({"a": pairs_of("a", 9, 2)}, {"a": 1.0}) == pairs_of("a", 9, 2)
    halves = {"a": 0.5, "b": 0.5}
    assert mixture({"a": pairs_of("a", 9, 2), "b": pairs_of("b", 9)}, halves) == pairs_of("a", 9, 2) + pairs_of("b", 9)
    with pytest.raises(UserError, match="part b of the mixture has no training pair"):
        mixture({"a": pairs_of("a", 3), "b": pairs_of("b", 0, 3)}, {"a": 0.5, "b": 0.5})


@pytest.mark.parametrize("shares", [{"a": 1.0}, {"a": 0.7, "b": 0.4}, {"a": 1.0, "b": 0}, {"a": 0.5, "b": "x"}])
def test_shares_that_cannot_be_are_refused(shares):
    with pytest.raises(UserError, match="shares"):
        MixedPairs({"a": None, "b": None}, shares)
