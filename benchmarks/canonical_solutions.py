"""Judge every benchmark's own solutions: the least that a judge must get right.

    python benchmarks/canonical_solutions.py                       # all; prints a table and what did not pass
    python benchmarks/canonical_solutions.py --benchmark humaneval --json solutions.json

The files are those below --data-dir (default: CPTLAB_DATA_DIR, or ../shared/data beside the repository).
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cptlab.judging.execution.executor import probe_sandbox  # noqa: E402
from cptlab.judging.verdicts.judge import judge_programs  # noqa: E402
from cptlab.records import Task  # noqa: E402
from cptlab.tasks import apps, bigcodebench, humaneval, kata, mbpp  # noqa: E402

BENCHMARKS = {
    "kata": lambda data: kata.kata().tasks,
    "humaneval": lambda data: humaneval.humaneval(data).tasks,
    "humaneval_plus": lambda data: humaneval.humaneval_plus(data).tasks,
    "mbpp": lambda data: mbpp.mbpp(data).tasks,
    "mbpp_sanitized": lambda data: mbpp.mbpp_sanitized(data).tasks,
    "mbpp_plus": lambda data: mbpp.mbpp_plus(data).tasks,
    "apps": None,  # several solutions a task
    "bigcodebench": lambda data: bigcodebench.bigcodebench(data).tasks,  # those of the standard library and numpy
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", choices=BENCHMARKS, action="append", help="default: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--data-dir", default=os.environ.get("CPTLAB_DATA_DIR", str(ROOT.parent / "shared/data")))
    options = parser.parse_args()
    results: dict[str, Any] = {"sandbox": probe_sandbox(), "benchmarks": {}}
    print(f"sandbox: {results['sandbox']['level']}\n\n{'benchmark':<16}{'solutions':>11}{'pass':>7}{'seconds':>9}")
    for name in options.benchmark or BENCHMARKS:
        items = _solutions(name, options.data_dir)
        start = time.monotonic()
        verdicts = judge_programs(items, workers=options.workers)
        seconds = round(time.monotonic() - start, 1)
        passed = sum(verdict.passed for verdict in verdicts)
        print(f"{name:<16}{len(items):>11}{passed:>7}{seconds:>9.1f}", flush=True)
        failures = [
            {"task": task.id, "status": verdict.status, "reason": verdict.reason, "needs": _packages_missing(task)}
            for (_, task), verdict in zip(items, verdicts, strict=True) if not verdict.passed
        ]  # fmt: skip
        results["benchmarks"][name] = {
            "solutions": len(items),
            "passed": passed,
            "seconds": seconds,
            "failures": failures,
        }
    for name, result in results["benchmarks"].items():
        for failure in result["failures"]:
            why = (
                f"its tests import {failure['needs']}"
                if failure["needs"]
                else failure["reason"].replace("\n", " ")[:110]
            )
            print(f"  {name} {failure['task']}: {failure['status']}: {why}")
        if any(failure["needs"] for failure in result["failures"]):
            counts = Counter(failure["needs"] for failure in result["failures"] if failure["needs"])
            print(f"  {name}: tests that import what is not installed: {dict(counts)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _solutions(name: str, data: str) -> list[tuple[str, Task]]:
    if name == "apps":
        return [(program, task) for task, program in apps.all_solutions(data, "layout")]
    return [(task.canonical_solution, task) for task in BENCHMARKS[name](data) if task.canonical_solution is not None]


def _packages_missing(task: Task) -> str:
    """Return what a task's own tests import that neither the standard library nor numpy has."""
    tree = ast.parse(task.setup) if task.kind == "check" else ast.parse("")
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"numpy", ""}
    return ", ".join(sorted(packages))


if __name__ == "__main__":
    main()
