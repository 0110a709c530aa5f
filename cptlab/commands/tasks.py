"""Look at a benchmark's tasks, and judge their canonical solutions: the check of a file of your own.

cptlab tasks benchmark=jsonl benchmark.path=tasks.jsonl
cptlab tasks benchmark=humaneval
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from omegaconf import DictConfig

from cptlab.commands.shared.common import check_sandbox
from cptlab.errors import UserError
from cptlab.judging.verdicts.judge import judge_stream
from cptlab.process.ends import exit_with
from cptlab.progress import progress_bar
from cptlab.records import Task
from cptlab.settings.entry import hydra_command
from cptlab.settings.instantiate import instantiate
from cptlab.storage.run_directory import discard


def tasks(config: DictConfig, fresh: Path) -> None:
    """Print the size of each split, the first prompt, and the canonical solutions that do not pass.

    Raises UserError where some do not, after all were run.
    """
    discard(fresh)
    benchmark = instantiate(config.benchmark, "benchmark")
    found = benchmark.tasks
    splits = ", ".join(f"{number} {split}" for split, number in Counter(task.split for task in found).items())
    shown, hidden = (sum(len(getattr(task, name)) for task in found) for name in ("public_tests", "hidden_tests"))
    print(f"{benchmark.name}: {len(found)} tasks ({splits}), {shown} public and {hidden} hidden tests")
    print(f"\nThe prompt of {found[0].id}:\n\n{found[0].prompt.text}")
    solved = [(task, str(task.canonical_solution)) for task in found if task.canonical_solution is not None]
    if not solved:
        print("No task has a canonical solution, so its tests are not checked.")
        return
    check_sandbox(config)
    failed = _failed(solved, config)
    passed = len(solved) - len(failed)
    print(f"Canonical solutions: {passed} of {len(solved)} pass; {len(found) - len(solved)} tasks have none")
    for line in failed:
        print(f"  {line}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(solved)} canonical solutions do not pass the tests of their tasks. Correct the "
            "solutions or the tests, or leave the tasks out with benchmark.exclude."
        )


def _failed(solved: list[tuple[Task, str]], config: DictConfig) -> list[str]:
    """Judge the solutions; return a line for each that does not pass, in the order of the tasks."""
    items = ((number, program, task) for number, (task, program) in enumerate(solved))
    how = {"workers": config.workers, "limits": instantiate(config.judge, "judge"), "at_least": config.sandbox}
    failed = {}
    with progress_bar("Judging canonical solutions", len(solved), "programs") as advance:
        for number, verdict in judge_stream(items, **how):
            advance(1)
            if not verdict.passed:
                failed[number] = f"{solved[number][0].id}: {verdict.status}: {' '.join(verdict.reason.split())}"
    return [failed[number] for number in sorted(failed)]


main = hydra_command("tasks", tasks)

if __name__ == "__main__":
    exit_with(main())
