"""Any benchmark with perturbed prompts (ReCode, arXiv 2212.10264): several perturbations of each task, judged alike.

Tables then have robust pass@k and robust quality, the worst case over the perturbations of a task (metrics/definitions.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from cptlab.errors import UserError
from cptlab.settings.setting import Part, Setting, check_settings
from cptlab.tasks.benchmark import Benchmark
from cptlab.tasks.perturbations import KINDS, perturbed_task


def perturbed(
    of: Annotated[Benchmark, Part()],
    kind: Annotated[str, Setting("What is perturbed (cptlab/tasks/perturbations.py).", choices=KINDS)] = "docstring",
    count: Annotated[int, Setting("Perturbations of each task (ReCode: 5).", at_least=1)] = 5,
    seed: Annotated[int, Setting("Seed of the perturbations.")] = 0,
) -> Benchmark:
    """Return a benchmark of `count` perturbations of each task, in its split, with ids such as HumanEval/3~docstring0.

    Raises UserError where no task has what would be perturbed.
    """
    check_settings(perturbed, kind=kind, count=count)
    name = f"{of.name}_{kind}"
    tasks = []
    changed = False
    for task in of.tasks:
        for number in range(count):
            made = perturbed_task(task, kind, f"{seed} {task.id} {number}")
            changed = changed or made != task
            tasks.append(replace(made, id=f"{task.id}~{kind}{number}", benchmark=name, variant_of=task.id))
    if not changed:
        raise UserError(f"No task of {of.name} has what kind={kind} perturbs. Choose another benchmark.kind.")
    return Benchmark(name, tuple(tasks))
