"""Greedy pass@1 of real LLMs on HumanEval, HumanEval+, MBPP and MBPP+, beside the published figures of EvalPlus.

    python benchmarks/greedy.py --model qwen2_5_coder_0_5b_instruct=DIR     # evaluates, and adds to results/greedy
    python benchmarks/greedy.py                                             # the table of what results/greedy holds

A model is a file of conf/backbone/ and, behind =, where its weights are. Each benchmark is one evaluation with nothing but
decoding=greedy and float32; it resumes, and HumanEval and HumanEval+ share their programs, as MBPP and MBPP+ do. MBPP
is EvalPlus's part of it: 378 tasks, with MBPP's own assertions. `--limit` takes the first tasks alone. Published are the
figures of Table 16 of the Qwen2.5-Coder report (arXiv 2409.12186), which EvalPlus measured on the unquantised models.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = {"humaneval": "HumanEval", "humaneval_plus": "HumanEval+", "mbpp_evalplus": "MBPP", "mbpp_plus": "MBPP+"}
PUBLISHED = {
    "qwen2_5_coder_0_5b_instruct": (61.6, 57.3, 52.4, 43.7),
    "qwen2_5_coder_1_5b_instruct": (70.7, 66.5, 69.2, 59.4),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH", help="evaluate this model")
    parser.add_argument("--benchmark", action="append", choices=BENCHMARKS, help="these alone")
    parser.add_argument("--limit", type=int, help="the first tasks of each benchmark alone")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "greedy", help="where packed runs are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args(arguments)
    for model in options.model:
        name, _, path = model.partition("=")
        for benchmark in options.benchmark or BENCHMARKS:
            evaluate(name, path, benchmark, options.limit, options.results / name / benchmark)
    rows = rows_of(options.results)
    if not rows:
        sys.exit(f"There is no run below {options.results}. Name a model with --model NAME=PATH.")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def evaluate(name: str, path: str, benchmark: str, limit: int | None, target: Path) -> None:
    """Run one evaluation in a process of its own, and keep what it leaves, packed."""
    settings = [f"backbone={name}", "backbone.dtype=float32", f"benchmark={benchmark}", "decoding=greedy", "run=null",
                "print_config=false"]  # fmt: skip
    settings += [f"backbone.path={path}"] * bool(path) + [f"limit={limit}"] * bool(limit)
    print(f"\n{name} on {BENCHMARKS[benchmark]}", file=sys.stderr, flush=True)
    command = [sys.executable, ROOT / "evaluate.py", *settings]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        sys.exit(process.returncode)
    run = next(line for line in process.stdout.splitlines() if line.startswith("Run directory: "))
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "cptlab.commands.pack", run.removeprefix("Run directory: "), target], check=True
    )


def rows_of(results: Path) -> list[dict[str, Any]]:
    """Return the figures of all packed runs below a directory."""
    return [row(file) for file in sorted(results.glob("*/*/metrics.json"), key=order)]


def order(file: Path) -> tuple[str, int]:
    return file.parent.parent.name, list(BENCHMARKS).index(file.parent.name)


def row(file: Path) -> dict[str, Any]:
    """Return the figures of one run, pass@1 in percent."""
    metrics = json.loads(file.read_text(encoding="utf-8"))
    found, model, benchmark = metrics["results"]["base"]["all"], file.parent.parent.name, file.parent.name
    published = dict(zip(BENCHMARKS, PUBLISHED.get(model, ()))).get(benchmark)
    return {
        "model": model,
        "benchmark": BENCHMARKS[benchmark],
        "tasks": found["tasks"],
        "pass@1": 100 * found["pass@1"],
        "pass@1_ci": [100 * end for end in found["pass@1_ci"]],
        "published": published,
        "versions": metrics["versions"],
        "commit": metrics["git"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'model':30}{'benchmark':12}{'tasks':>6}{'pass@1':>9}{'95% interval':>16}{'published':>11}{'difference':>12}"
    ]
    for one in rows:
        low, high = one["pass@1_ci"]
        published, difference = one["published"], ""
        if published is not None:
            difference = f"{one['pass@1'] - published:+.1f}"
        lines.append(
            f"{one['model']:30}{one['benchmark']:12}{one['tasks']:6}{one['pass@1']:9.1f}{f'[{low:.1f}, {high:.1f}]':>16}"
            f"{published or '':>11}{difference:>12}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
