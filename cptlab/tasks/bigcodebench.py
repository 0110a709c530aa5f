"""BigCodeBench-Complete (Zhuo et al. 2024, arXiv 2406.15877): functions that use many libraries, with unittest tests.

Each test method is a test. Before them runs, as the benchmark has it, a module with the reference's imports and the test
file; `task_func` in it is the program's. The tests of 78 of the 364 tasks of the subset stdlib patch something with
unittest.mock, or write files for the function to read: what these do stays in the process where the tests run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from typing import Any

from cptlab.errors import UserError
from cptlab.records import Task, Test
from cptlab.tasks.benchmark import Benchmark, divided
from cptlab.tasks.docstrings import docstring_prompt
from cptlab.tasks.files import Source, make_tasks, read_rows

SOURCE = Source("bigcodebench/BigCodeBench.jsonl", ("bigcode/bigcodebench",), ("v0.1.4",))
SUBSETS = ("stdlib", "all")


def bigcodebench(
    data_dir: str | None = None, subset: str = "stdlib", fractions: Sequence[float] | None = None
) -> Benchmark:
    """`subset` stdlib: the 364 tasks whose libraries are the standard one and numpy; all: the 1,140 of the benchmark,
    which need its many libraries installed. In split test unless `fractions` divide them.
    """
    if subset not in SUBSETS:
        raise UserError(f"benchmark.subset={subset} is unknown. Choose one of: {', '.join(SUBSETS)}.")
    tasks = make_tasks(read_rows(SOURCE, data_dir), lambda row: _task(row) if subset == "all" or _stdlib(row) else None)
    return Benchmark("bigcodebench", divided(tasks, fractions))


def _stdlib(row: dict[str, Any]) -> bool:
    libraries = {name.split(".")[0] for name in ast.literal_eval(row["libs"])}
    return libraries <= sys.stdlib_module_names | {"numpy"}


def _task(row: dict[str, Any]) -> Task:
    prompt, entry_point = row["complete_prompt"], row["entry_point"]
    return Task(
        id=row["task_id"],
        benchmark="bigcodebench",
        split="test",
        difficulty="",
        kind="check",
        prompt=docstring_prompt(prompt, entry_point),
        entry_point=entry_point,
        hidden_tests=tuple(Test(code=f"run_case({case!r}, {method!r})") for case, method in test_methods(row["test"])),
        reference=prompt + row["canonical_solution"],
        tags=tuple(sorted(ast.literal_eval(row["libs"]))),
        setup=f"{row['code_prompt']}{row['canonical_solution']}\n\n{row['test']}\n",
        names=(entry_point,),
    )


def test_methods(source: str) -> list[tuple[str, str]]:
    """(class, method) of every unittest test, in the order in which unittest runs them."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("TestCase") for base in node.bases):
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            found += [(node.name, name) for name in sorted(methods) if name.startswith("test")]
    if not found:
        raise ValueError("its tests hold no unittest method")
    return found


test_methods.__test__ = False  # not a pytest function
