"""Benchmarks: named sets of tasks with splits. Each benchmark is a function that returns a `Benchmark`."""

from cptlab.tasks.benchmark import Benchmark

__all__ = ["Benchmark"]
