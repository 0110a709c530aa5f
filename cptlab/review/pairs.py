"""The pairs of a blind review: which tasks and programs are shown, and which program stands on which side.

CPT RQ5: distinct tasks that both systems solved with a valid (compilable and runnable) program, one such program of each
chosen at random, sides at random. Everything is drawn from a seed, so the same programs give the same pairs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from cptlab.errors import UserError
from cptlab.reporting.evaluation import Evaluation, StoredProgram

PAIRS = 100  # as in the paper
RUNS = ("passed", "failed")  # verdicts of a program that ran to its end; a wrong answer is an answer


@dataclass(frozen=True)
class Program:
    """One program of a pair: whose it is, which of the task's samples, its pylint score and its text."""

    system: str
    sample: int
    score: float
    text: str


@dataclass(frozen=True)
class Pair:
    """Two programs for one task. `prompt` is what the systems were asked."""

    task: str
    prompt: str
    left: Program
    right: Program

    def of(self, system: str) -> Program:
        """Return the program of a system."""
        return self.left if self.left.system == system else self.right


def choose_systems(evaluation: Evaluation, named: tuple[str, ...] | None = None) -> tuple[str, str]:
    """Return the two systems to review: those that are named, or the first two. The first is the one to improve on.

    Raises UserError where these are not two systems of the evaluation.
    """
    names = ", ".join(evaluation.systems)
    if len(evaluation.systems) < 2:
        raise UserError(
            f"{evaluation.directory} has one system ({names}), and a review compares two. Evaluate another one with it: "
            "system=[base,tuned]."
        )
    chosen = tuple(evaluation.systems)[:2] if named is None else named
    if len(set(chosen)) != 2 or len(chosen) != 2 or not set(chosen) <= set(evaluation.systems):
        raise UserError(f"systems must be two of {names}, got [{', '.join(chosen)}].")
    return chosen[0], chosen[1]


def choose_pairs(evaluation: Evaluation, systems: tuple[str, str], number: int = PAIRS, seed: int = 0) -> list[Pair]:
    """Return at most `number` pairs in the order of their tasks' ids."""
    draw = random.Random(seed)
    valid = {
        name: {task.id: list(filter(_runs, evaluation.systems[name][task.id])) for task in evaluation.tasks}
        for name in systems
    }
    both = [task for task in evaluation.tasks if all(valid[name][task.id] for name in systems)]
    pairs = []
    for task in sorted(draw.sample(both, min(len(both), number)), key=lambda task: task.id):
        chosen = {name: _program(name, draw.choice(valid[name][task.id])) for name in systems}
        left, right = (chosen[name] for name in draw.sample(systems, 2))
        pairs.append(Pair(task.id, task.prompt.text, left, right))
    return pairs


def _runs(program: StoredProgram) -> bool:
    return program.verdict.status in RUNS


def _program(system: str, stored: StoredProgram) -> Program:
    completion = stored.completion
    return Program(system, completion.sample, stored.quality.score, completion.program)
