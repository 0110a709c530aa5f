"""Programs that real LLMs wrote, judged by our judge and by an independent rerun, beside their upstream verdicts.

    python benchmarks/generations.py                               # HumanEval and MBPP; prints tables and differences
    python benchmarks/generations.py --json generations.json

The programs are <data-dir>/generations/*.jsonl.gz (see PROVENANCE.md there), taken as completions, so cleaned first. The
rerun is a plain interpreter for each program: prompt, program as it is, the benchmark's tests, 10 s. It shares no code
with the judge, neither cleans nor protects, and believes the exit status.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cptlab.judging.cleaning.clean import clean  # noqa: E402
from cptlab.judging.verdicts.judge import judge_programs  # noqa: E402
from cptlab.tasks.humaneval import humaneval  # noqa: E402
from cptlab.tasks.mbpp import mbpp  # noqa: E402

SECONDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("CPTLAB_DATA_DIR", ROOT.parent / "shared/data"))
    options = parser.parse_args()
    data = Path(options.data_dir)
    results = {}
    for name, benchmark, tests in (("humaneval", humaneval, _humaneval_tests), ("mbpp", mbpp, _mbpp_tests)):
        rows = _read(data / "generations" / f"{name}.jsonl.gz")
        tasks = {task.id: task for task in benchmark(str(data)).tasks}
        ids = [re.sub(r"^mbpp_(\d+)_.*", r"Mbpp/\1", str(row["task_id"])) for row in rows]
        items = [(clean(row["code"], tasks[one], False), tasks[one]) for row, one in zip(rows, ids, strict=True)]
        verdicts = judge_programs(items, workers=options.workers)
        scripts = tests(data, rows, ids)
        with ThreadPoolExecutor(options.workers) as pool:
            reruns = list(pool.map(_rerun, scripts))
        results[name] = _compared(name, rows, ids, verdicts, reruns)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _compared(name: str, rows: list[Any], ids: list[str], verdicts: list[Any], reruns: list[tuple[bool, str]]) -> Any:
    ours = [verdict.passed for verdict in verdicts]
    upstream = [row["is_solved"] for row in rows]
    plain = [passed for passed, _ in reruns]
    result: dict[str, Any] = {"programs": len(rows), "ours": sum(ours), "rerun": sum(plain), "upstream": sum(upstream)}
    print(
        f"\n{name}: {len(rows)} programs; passed: {sum(ours)} by us, {sum(plain)} by the rerun, {sum(upstream)} upstream"
    )
    for title, other in (("rerun", plain), ("upstream", upstream)):
        differ = [i for i in range(len(rows)) if ours[i] != other[i]]
        kinds = Counter((ours[i], _kind(reruns[i][1]) if ours[i] else _kind(verdicts[i].reason)) for i in differ)
        result[title] = {
            "differ": len(differ),
            "kinds": [[*kind, count] for kind, count in kinds.most_common()],
            "rows": [[i, ids[i], verdicts[i].status, verdicts[i].reason, reruns[i][1]] for i in differ],
        }
        print(f"  {len(differ)} differ from the {title}:")
        for (passed, why), count in kinds.most_common(12):
            print(f"    {count:>4}  {'we pass; the rerun said' if passed else 'we do not pass'}: {why or 'it passes'}")
    return result


def _kind(text: str) -> str:
    """An error without the names and numbers in it."""
    text = re.sub(r"^(?:public|hidden) test \d+: ", "", text)
    return re.sub(r"'[^']*'|\b\w+\(\)|\d+", "_", text)[:80]


def _read(path: Path) -> list[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _humaneval_tests(data: Path, rows: list[Any], ids: list[str]) -> list[str]:
    tasks = {row["task_id"]: row for row in _read(data / "humaneval" / "HumanEval.jsonl.gz")}
    scripts = []
    for row, one in zip(rows, ids, strict=True):
        task = tasks[one]
        whole = f"def {task['entry_point']}" in row["code"]  # else a body, which goes on where the prompt ends
        program = task["prompt"] + ("\n    pass\n" if whole else "") + row["code"]
        scripts.append(f"{program}\n{task['test']}\ncheck({task['entry_point']})\n")
    return scripts


def _mbpp_tests(data: Path, rows: list[Any], ids: list[str]) -> list[str]:
    tasks = {f"Mbpp/{row['task_id']}": row for row in _read(data / "mbpp" / "mbpp.jsonl.gz")}
    parts = [[row["code"], tasks[one]["test_setup_code"], *tasks[one]["test_list"], *tasks[one]["challenge_test_list"]]
             for row, one in zip(rows, ids, strict=True)]  # fmt: skip
    return ["\n".join(part) for part in parts]


def _rerun(script: str) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run([sys.executable, "-I", "-c", script], cwd=folder, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, errors="replace", timeout=SECONDS)  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, "timeout"
    return done.returncode == 0, done.stderr.strip().rpartition("\n")[2]


if __name__ == "__main__":
    main()
