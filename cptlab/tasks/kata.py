"""The embedded benchmark (cptlab/kata) as a Benchmark."""

from __future__ import annotations

from cptlab.kata.benchmark import build
from cptlab.tasks.benchmark import Benchmark, Exclude


def kata(exclude: Exclude = ()) -> Benchmark:
    """Return 1,800 generated tasks, 8:1:1 in splits train, validation and test. Nothing is downloaded."""
    return Benchmark("kata", build()[0]).without(exclude)
