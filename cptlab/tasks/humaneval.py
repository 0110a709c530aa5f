"""HumanEval (Chen et al. 2021, arXiv 2107.03374) and HumanEval+ (EvalPlus, arXiv 2305.01210).

A program continues the prompt, which is a signature with its docstring. The tests are the benchmark's own `check`: for
HumanEval each of its assertions is a test, for HumanEval+ each part of its loop (evalplus.py). They run after the
canonical solution, since some tests call it or its helpers. Public tests are the examples in the docstring that can be read
(docstrings.py): 379 for 137 of the 164 tasks. They are no part of `check`, so they do not count in the verdict.
"""

from __future__ import annotations

import ast
from typing import Any

from cptlab.records import Task, Test
from cptlab.tasks.benchmark import Benchmark, Exclude, Fractions, divided
from cptlab.tasks.docstrings import docstring_prompt, docstring_tests
from cptlab.tasks.evalplus import MAX_NEW_TOKENS, loop_tests
from cptlab.tasks.files import DataDir, Source, make_tasks, read_rows

ORIGINAL = Source("humaneval/HumanEval.jsonl", ("openai/openai_humaneval",), ("test",))
PLUS = Source("humanevalplus/HumanEvalPlus-OriginFmt.jsonl", ("evalplus/humanevalplus",), ("test",))

# of tasks whose canonical solution takes more than half a second for a part of EvalPlus's loop
_CPU_SECONDS = {f"HumanEval/{number}": 10.0 for number in (15, 83, 130, 139)}
# examples in docstrings that the canonical solution and the tests contradict
_WRONG_EXAMPLES = {
    "HumanEval/47": ("assert candidate([-10, 4, 6, 1000, 10, 20]) == 15.0",),
    "HumanEval/116": (
        "assert candidate([1, 5, 2, 3, 4]) == [1, 2, 3, 4, 5]",
        "assert candidate([-2, -3, -4, -5, -6]) == [-6, -5, -4, -3, -2]",
    ),
    "HumanEval/130": ("assert candidate(1) == 3", "assert candidate(4) == 3"),
    "HumanEval/148": ("assert candidate('Earth', 'Mercury') == 'Venus'",),
}


def humaneval(data_dir: DataDir = None, fractions: Fractions = None, exclude: Exclude = ()) -> Benchmark:
    """Load the 164 tasks, all in split test unless `fractions` divide them."""
    tasks = make_tasks(read_rows(ORIGINAL, data_dir), lambda row: _task(row, "humaneval", check_units(row["test"])))
    return Benchmark("humaneval", divided(tasks, fractions)).without(exclude)


def humaneval_plus(data_dir: DataDir = None, fractions: Fractions = None, exclude: Exclude = ()) -> Benchmark:
    """Load HumanEval's tasks with EvalPlus's tests and corrected solutions, in split test unless `fractions` divide them."""
    tasks = make_tasks(read_rows(PLUS, data_dir), lambda row: _task(row, "humaneval_plus", loop_tests(row["test"])))
    return Benchmark("humaneval_plus", divided(tasks, fractions)).without(exclude)


def _task(row: dict[str, Any], benchmark: str, tests: tuple[str, list[str]]) -> Task:
    prompt, entry_point = row["prompt"], row["entry_point"]
    solution = prompt + row["canonical_solution"]
    preamble, units = tests
    wrong = _WRONG_EXAMPLES.get(row["task_id"], ())
    shown = [unit for unit in docstring_tests(prompt, entry_point) if unit not in wrong]
    return Task(
        id=row["task_id"],
        benchmark=benchmark,
        split="test",
        difficulty="",
        kind="check",
        prompt=docstring_prompt(prompt, entry_point, MAX_NEW_TOKENS),
        entry_point=entry_point,
        public_tests=tuple(Test(code=unit) for unit in shown),
        hidden_tests=tuple(Test(code=unit) for unit in units),
        canonical_solution=solution,
        setup=f"{solution}\n\n{preamble}",
        cpu_seconds=_CPU_SECONDS.get(row["task_id"]) if benchmark == "humaneval_plus" else None,
        uncounted="public",
    )


def check_units(source: str) -> tuple[str, list[str]]:
    """Split HumanEval's test text into the text before `check`, and the body of `check` in units.

    A unit ends with a statement that asserts. Any other statement belongs to the unit that follows it.
    """
    tree = ast.parse(source)
    check = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    if check is None or [argument.arg for argument in check.args.args] != ["candidate"]:
        raise ValueError("its tests have no function check(candidate)")
    units: list[str] = []
    waiting: list[str] = []
    for statement in check.body:
        waiting.append(ast.unparse(statement))
        if any(isinstance(node, ast.Assert) for node in ast.walk(statement)):
            units.append("\n".join(waiting))
            waiting = []
    if not units:
        raise ValueError("its function check asserts nothing")
    units[-1] = "\n".join([units[-1], *waiting])
    tree.body.remove(check)
    return ast.unparse(tree), units
