"""The embedded benchmark (cptlab/kata) as a Benchmark, with each of its two shapes of prompts."""

from __future__ import annotations

from cptlab.kata.benchmark import NAMES, build
from cptlab.tasks.benchmark import Benchmark, Exclude


def kata(exclude: Exclude = ()) -> Benchmark:
    """Return 1,800 generated tasks, 8:1:1 in splits train, validation and test. Nothing is downloaded."""
    return Benchmark(NAMES["leading"], build()[0]).without(exclude)


def kata_docstring(exclude: Exclude = ()) -> Benchmark:
    """Return the same tasks in the same splits, asked as HumanEval asks: the description is the function's docstring."""
    return Benchmark(NAMES["docstring"], build("docstring")[0]).without(exclude)
