"""Our verdicts on the programs of results/greedy beside those of EvalPlus's own evaluator on the same programs.

    pip install evalplus
    python benchmarks/evalplus_verdicts.py --data-dir DIR                     # prints a table
    python benchmarks/evalplus_verdicts.py --data-dir DIR --json FILE         # and writes the same numbers

DIR is paths.data_dir, with EvalPlus's files humanevalplus/HumanEvalPlus.jsonl.gz and mbppplus/MbppPlus.jsonl.gz. HumanEval and MBPP
are EvalPlus's base tests, HumanEval+ and MBPP+ those and its further ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import greedy  # noqa: E402  # pyright: ignore[reportMissingImports]

from cptlab.records import Completion, Verdict  # noqa: E402
from cptlab.storage.jsonl import read_jsonl  # noqa: E402

FILES = {
    "HUMANEVAL_OVERRIDE_PATH": "humanevalplus/HumanEvalPlus.jsonl.gz",
    "MBPP_OVERRIDE_PATH": "mbppplus/MbppPlus.jsonl.gz",
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="where the benchmark files are")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "greedy")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("evalplus") is None:
        sys.exit("EvalPlus is not installed. Run pip install evalplus, best in an environment of its own.")
    files = {name: str(options.data_dir / file) for name, file in FILES.items()}
    if missing := [file for file in files.values() if not Path(file).is_file()]:
        sys.exit(f"There is no {missing[0]}. Correct --data-dir.")
    rows = []
    for file in sorted(options.results.glob("*/*/metrics.json"), key=greedy.order):
        rows.append(compared(file.parent, files))
        print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def compared(run: Path, files: dict[str, str]) -> dict[str, Any]:
    """Return pass@1 in percent by both judges, and the tasks whose verdicts differ."""
    completions = list(read_jsonl(run / "base" / "completions.jsonl", Completion))
    verdicts = list(read_jsonl(run / "base" / "verdicts.jsonl", Verdict))
    theirs = by_evalplus(run.name, completions, files)
    ours = {completion.task_id: verdict.passed for completion, verdict in zip(completions, verdicts, strict=True)}
    return {
        "model": run.parent.name,
        "benchmark": greedy.BENCHMARKS[run.name],
        "tasks": len(ours),
        "ours": 100 * sum(ours.values()) / len(ours),
        "evalplus": 100 * sum(theirs.values()) / len(ours),
        "differ": [task for task in ours if ours[task] != theirs[task]],
    }


def by_evalplus(benchmark: str, completions: list[Completion], files: dict[str, str]) -> dict[str, bool]:
    """Return whether EvalPlus passes the program of each task."""
    with tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch) / "samples.jsonl"
        rows = ({"task_id": one.task_id, "solution": one.program} for one in completions)
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        dataset = "humaneval" if benchmark.startswith("humaneval") else "mbpp"
        command = [sys.executable, "-m", "evalplus.evaluate", "--dataset", dataset, "--samples", str(samples)]
        done = subprocess.run(command, env={**os.environ, **files}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"EvalPlus failed:\n{done.stderr}")
        found = json.loads(samples.with_name("samples_eval_results.json").read_text(encoding="utf-8"))["eval"]
    counted = ("base_status", "plus_status") if benchmark.endswith("_plus") else ("base_status",)
    return {task: all(result[name] == "pass" for name in counted) for task, (result,) in found.items()}


def line(row: dict[str, Any]) -> str:
    differ = f"; differ: {', '.join(row['differ'])}" if row["differ"] else ""
    return (
        f"{row['model']} {row['benchmark']}: {row['ours']:.1f} by our judge, {row['evalplus']:.1f} by EvalPlus's; "
        f"{row['tasks'] - len(row['differ'])} of {row['tasks']} verdicts are the same{differ}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
