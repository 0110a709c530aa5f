"""BigCodeBench-Complete (Zhuo et al. 2024, arXiv 2406.15877): functions that use many libraries, with unittest tests.

Each test method is a test. Before the tests runs, as in the benchmark, a module with the canonical solution and the test
file; `task_func` in it is replaced by the program's. Of the 364 tasks of the subset stdlib, 78 have tests that patch
something with unittest.mock, and the tests of 22 need faker, pytz, pyfakefs or requests_mock, which cptlab does not install.
"""

from __future__ import annotations

import ast
import sys
from typing import Annotated, Any

from cptlab.records import Task, Test
from cptlab.settings.setting import Setting, check_settings
from cptlab.tasks.benchmark import Benchmark, Exclude, Fractions, divided
from cptlab.tasks.docstrings import docstring_prompt
from cptlab.tasks.files import DataDir, Source, make_tasks, read_rows

SOURCE = Source("bigcodebench/BigCodeBench.jsonl", ("bigcode/bigcodebench",), ("v0.1.4",))
MAX_NEW_TOKENS = 1280  # of an answer, as the benchmark's own harness samples it
# of tasks whose canonical solution works or sleeps longer than usual in a test: 11 s, 9 s, 5 to 7 s
_CPU_SECONDS = {f"BigCodeBench/{number}": seconds for number, seconds in (
    (0, 60.0), (195, 30.0), (220, 20.0), (819, 20.0), (823, 20.0), (1105, 20.0))}  # fmt: skip


def bigcodebench(
    data_dir: DataDir = None,
    subset: Annotated[
        str,
        Setting(
            "stdlib: the 364 tasks that need only the standard library and numpy; all: the 1,140 of the benchmark, which "
            "need their many libraries.",
            choices=("stdlib", "all"),
        ),
    ] = "stdlib",
    fractions: Fractions = None,
    exclude: Exclude = (),
) -> Benchmark:
    """Load the tasks of `subset`, all in split test unless `fractions` divide them."""
    check_settings(bigcodebench, subset=subset)
    tasks = make_tasks(read_rows(SOURCE, data_dir), lambda row: _task(row) if subset == "all" or _stdlib(row) else None)
    return Benchmark("bigcodebench", divided(tasks, fractions)).without(exclude)


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
        prompt=docstring_prompt(prompt, entry_point, MAX_NEW_TOKENS),
        entry_point=entry_point,
        hidden_tests=tuple(
            Test(code=f"run_case({case!r}, {method!r})") for case, method in unittest_methods(row["test"])
        ),
        canonical_solution=prompt + row["canonical_solution"],
        tags=tuple(sorted(ast.literal_eval(row["libs"]))),
        setup=f"{row['code_prompt']}{row['canonical_solution']}\n\n{row['test']}\n",
        names=(entry_point,),
        cpu_seconds=_CPU_SECONDS.get(row["task_id"]),
    )


def unittest_methods(source: str) -> list[tuple[str, str]]:
    """Return (class, method) of every unittest test, in the order in which unittest runs them."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("TestCase") for base in node.bases):
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            found += [(node.name, name) for name in sorted(methods) if name.startswith("test")]
    if not found:
        raise ValueError("its tests hold no unittest method")
    return found
