"""A user's own tasks: what rows become, what is refused row by row, and the check of canonical solutions."""

import gzip
import json
import re
from pathlib import Path

import pytest
from run_commands import TINY, command, config

from cptlab.commands.tasks import tasks as tasks_command
from cptlab.errors import UserError
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.settings.entry import prepare
from cptlab.systems.prompts.clean_code import CleanCode
from cptlab.tasks.jsonl import FIELDS, jsonl
from cptlab.tasks.kata import kata
from cptlab.tasks.prompting import ChatFormat, chat_prompt, question_of

DOCS = Path(__file__).parents[2] / "docs/benchmarks.md"
ADD = {
    "id": "add", "prompt": "Add two numbers.", "entry_point": "add", "tests": ["assert add(1, 2) == 3"],
    "hidden_tests": ["assert add(-1, 1) == 0"], "canonical_solution": "def add(a, b):\n    return a + b\n",
}  # fmt: skip
DOUBLE = {
    "id": "double", "entry_point": "double", "tests": [{"args": [2], "expected": 4}],
    "prompt": 'def double(x: int) -> int:\n    """Return twice x.\n\n    >>> double(2)\n    4\n    """\n',
    "canonical_solution": "    return 2 * x\n",
}  # fmt: skip
SUM = {
    "id": 3, "prompt": "Print the sum of two integers on one line.", "tests": [{"stdin": "1 2\n", "expected": "3\n"}],
    "canonical_solution": "print(sum(map(int, input().split())))\n",
}  # fmt: skip


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def tasks_of(tmp_path, *rows):
    return jsonl(write(tmp_path / "mine.jsonl", *rows)).tasks


def spans(task):
    return [(span.name, task.prompt.text[span.start : span.end]) for span in task.prompt.spans]


def test_the_three_forms(tmp_path):
    add, double, script = tasks_of(tmp_path, ADD, DOUBLE, SUM)
    assert add.prompt.text == '"""\nAdd two numbers.\nassert add(1, 2) == 3\n"""\n' and add.prompt.code == ""
    assert spans(add) == [("nl", "Add two numbers."), ("tests", "assert add(1, 2) == 3")]
    assert (add.kind, add.names, add.benchmark, add.split) == ("check", ("add",), "mine", "test")
    assert double.prompt.text == double.prompt.code == DOUBLE["prompt"] and double.kind == "call"
    assert ("nl", "Return twice x.") in spans(double) and ("tests", ">>> double(2)\n    4") in spans(double)
    assert double.canonical_solution == DOUBLE["prompt"] + DOUBLE["canonical_solution"]
    assert (script.id, script.kind, script.entry_point) == ("3", "stdin", None)
    assert script.prompt.text == '"""\nPrint the sum of two integers on one line.\nInput:\n1 2\nOutput:\n3\n"""\n'
    for task in (add, double, script):
        wrong = task.canonical_solution.replace("+", "-").replace("2 *", "3 *").replace("sum", "max")
        right, bad = judge_programs([(task.canonical_solution, task), (wrong, task)])
        assert right.passed and not bad.passed, task.id
        cleaner = CleanCode().apply(task.prompt)
        assert "no unused variables" in cleaner.text and cleaner.text.endswith(cleaner.code)


def test_how_base_and_chat_models_are_asked(tmp_path):
    add, double, script = tasks_of(tmp_path, ADD, DOUBLE, SUM)
    assert question_of(add).text == f"```\n{add.prompt.text.strip()}\n```"
    assert question_of(double).text == f"```\n{double.prompt.text.strip()}\n```"
    assert question_of(script).text == (
        "Print the sum of two integers on one line.\n\nInput:\n1 2\nOutput:\n3\n\n"
        "Read the input from standard input, and print the output."
    )
    asked = chat_prompt(question_of(script), script, ChatFormat("<user>", "<assistant>"))
    found = [(span.name, asked.text[span.start : span.end]) for span in asked.spans]
    assert found == [("nl", "Print the sum of two integers on one line."), ("tests", "Input:\n1 2\nOutput:\n3")]
    assert "\nassert" in add.prompt.stops and "\ndef " not in add.prompt.stops, "helpers may come first"
    assert "\ndef " in double.prompt.stops, "the function has begun"
    assert "\nprint(" not in script.prompt.stops, "a script prints"


def test_calls_are_shown_as_assertions_and_hidden_tests_are_not(tmp_path):
    row = ADD | {
        "tests": [{"args": ["a", None], "expected": [True]}],
        "hidden_tests": [{"args": [7, 7], "expected": 14}],
    }
    (task,) = tasks_of(tmp_path, row)
    assert "assert add('a', None) == [True]\n" in task.prompt.text and "14" not in task.prompt.text
    assert (len(task.public_tests), len(task.hidden_tests), task.uncounted) == (1, 1, "")


def test_code_is_what_the_program_begins_with(tmp_path):
    code = "import math\n\n\ndef area(r):"
    row = {"id": 1, "prompt": "The area of a circle.", "entry_point": "area", "code": code,
           "tests": ["assert math.isclose(area(1), math.pi)"], "canonical_solution": "\n    return math.pi * r * r\n"}  # fmt: skip
    (task,) = tasks_of(tmp_path, row)
    assert task.prompt.code == code and task.prompt.text.endswith(f'"""\n{code}')
    assert spans(task)[-1] == ("code", code)
    assert (task.names, task.setup.strip()) == (("area",), "import math"), "tests get the program's imports, as in MBPP"
    assert judge_programs([(task.canonical_solution, task)])[0].passed


def test_names_that_tests_need(tmp_path):
    solution = "class Node:\n    def __init__(self, n):\n        self.n = n\n\n\ndef top(node):\n    return node.n\n"
    row = {"id": 1, "prompt": "p", "entry_point": "top", "tests": ["assert candidate(Node(LIMIT)) == top(Node(3))"],
           "setup": "LIMIT = 3\n", "canonical_solution": solution}  # fmt: skip
    (task,) = tasks_of(tmp_path, row)
    assert task.names == ("Node", "top") and judge_programs([(solution, task)])[0].passed
    del row["canonical_solution"]
    assert tasks_of(tmp_path, row)[0].names == ("Node", "top"), (
        "without a solution, what nothing else defines is the program's"
    )
    shadow = {
        "id": 1,
        "prompt": "p",
        "entry_point": "sum",
        "tests": ["assert all(sum([x]) == (lambda y: y)(x) for x in range(3))"],
    }
    assert tasks_of(tmp_path, shadow)[0].names == ("sum",)


def test_the_model_is_told_the_name_of_its_function(tmp_path):
    tests = ["for x in (0, 1):\n    assert candidate(x, 'candidate') == f(x)"]
    row = {"id": 1, "prompt": "Add, as “f” does.", "entry_point": "add", "tests": tests, "setup": "def f(x): return x"}
    (task,) = tasks_of(tmp_path, row)
    assert dict(spans(task))["tests"] == "for x in (0, 1):\n    assert add(x, 'candidate') == f(x)"
    assert task.public_tests[0].code == tests[0]
    own = "assert [candidate for candidate in map(add, [1])] == [1]"
    assert dict(spans(tasks_of(tmp_path, row | {"tests": [own]})[0]))["tests"] == own
    hidden = row | {"tests": [], "hidden_tests": tests}
    with pytest.raises(UserError, match="line 1, field entry_point: nothing tells the model the name add"):
        tasks_of(tmp_path, hidden | {"prompt": "Write a function that adds and addends."})
    for told in ({"prompt": "Write a function add."}, {"code": "def add(a, b):\n"}):
        assert tasks_of(tmp_path, hidden | told)


def kata_rows(count):
    """Tasks of kata as rows with nearly kata's prompts, so that kata-lm understands them; no test is public."""
    found = [task for split in ("train", "validation") for task in kata().split(split) if task.kind == "call"][:count]
    return [
        {"id": task.id, "prompt": task.prompt.text.split('"""')[1], "code": task.prompt.code, "entry_point": "solve",
         "hidden_tests": [{"args": test.args, "expected": test.expected} for test in task.tests],
         "canonical_solution": task.canonical_solution, "split": "train" if at < count - 3 else "validation"}
        for at, task in enumerate(found)
    ]  # fmt: skip


def test_hidden_tests_alone(tmp_path):
    rows = kata_rows(5)
    by_id = {task.id: task for task in kata().tasks}
    for task in tasks_of(tmp_path, *rows):
        theirs = by_id[task.id].prompt
        assert task.prompt.text == theirs.text.replace('"""', '"""\n', 1) and task.prompt.code == theirs.code
        assert not task.public_tests and task.hidden_tests == by_id[task.id].tests
        assert judge_programs([(task.canonical_solution, task)])[0].passed


@pytest.mark.slow
def test_a_prefix_is_trained_on_own_tasks(tmp_path, capfd):
    path = write(tmp_path / "mine.jsonl", *kata_rows(12))
    tiny = [*TINY, "logger=none", "decoding.sampling.max_new_tokens=100", "benchmark=jsonl", f"benchmark.path={path}"]
    command("train", tmp_path, *tiny)
    run = tmp_path / "logs/train/runs/now"
    assert (run / "prefix/adapter_config.json").is_file()
    assert json.loads((run / "run.json").read_text())
    write(tmp_path / "mine.jsonl", *kata_rows(12)[1:], ADD)
    with pytest.raises(SystemExit):
        command("train", tmp_path, *tiny)
    assert "line 12, field split: some rows have a split and some have none" in capfd.readouterr().err, (
        "before any work"
    )


def test_splits(tmp_path):
    many = [ADD | {"id": number} for number in range(20)]
    assert [len(jsonl(write(tmp_path / "a.jsonl", *many)).split(name)) for name in ("train", "validation", "test")] == [
        16,
        2,
        2,
    ]
    own = [row | {"split": "train" if row["id"] < 15 else "test"} for row in many]
    path = write(tmp_path / "b.jsonl", *own)
    assert (len(jsonl(path).split("train")), len(jsonl(path).split("test"))) == (15, 5)
    assert len(jsonl(path, fractions=[0, 0, 1]).split("test")) == 20
    assert len(jsonl(write(tmp_path / "c.jsonl", *many[:5])).split("test")) == 5, "too few to divide"
    assert [task.id for task in jsonl(path, exclude=["3", 4]).tasks][:4] == ["0", "1", "2", "5"]


def test_other_files(tmp_path):
    expected = tasks_of(tmp_path, ADD, SUM)
    (tmp_path / "mine.jsonl.gz").write_bytes(gzip.compress((tmp_path / "mine.jsonl").read_bytes()))
    (tmp_path / "mine.json").write_text(
        json.dumps([{"task_id": "add", **ADD, "entry_point": "add", "_source": 1}, SUM])
    )
    assert jsonl(str(tmp_path / "mine.jsonl.gz")).tasks == jsonl(str(tmp_path / "mine.json")).tasks == expected
    with_mark = "\ufeff" + (tmp_path / "mine.jsonl").read_text().replace(
        "\n", "\r\n\r\n"
    )  # as editors of Windows save it
    (tmp_path / "marked.jsonl").write_bytes(with_mark.encode())
    assert [task.prompt for task in jsonl(str(tmp_path / "marked.jsonl")).tasks] == [task.prompt for task in expected]
    for name, content, said in (
        ("one.json", json.dumps(ADD).encode(), "one.json is not a list of objects"), ("n.json", b"3", "n.json is not a list"),
        ("cut.json", b"[{", "cut.json is not JSON"), ("latin.jsonl", '{"id": "größe"}'.encode("latin-1"), "is not UTF-8. Save it"),
        ("wide.jsonl", json.dumps(ADD).encode("utf-16"), "is not UTF-8. Save it"),
        ("deep.jsonl", b"[" * 99999, "line 1 is not JSON"), ("digits.jsonl", b"9" * 5000, "line 1 is not JSON"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=said):
            jsonl(str(tmp_path / name))
    for path, said in ((None, "Add benchmark.path"), (str(tmp_path / "no.jsonl"), "There is no file"), (str(tmp_path), "no file"),
                       (write(tmp_path / "mine.txt", ADD), "Name it so"), (write(tmp_path / "empty.jsonl"), "holds no task")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            jsonl(path)


WHOLE = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize("change, said", [
    ({"test": []}, "field test: there is no such field. Did you mean tests?"),
    ({"text": "Add"}, "field text: there is no such field. Did you mean prompt?"),
    ({"hiden_tests": []}, "Did you mean hidden_tests?"),
    ({"xyz": 1}, "A row has the fields id, prompt"),
    ({"tests": None, "hidden_tests": None}, "field tests: there are none. Write tests of one form"),
    ({"tests": "assert add(1, 2) == 3"}, "field tests: it must be a list"),
    ({"tests": [], "hidden_tests": []}, "field tests: there are none"),
    ({"tests": ["assrt add(1, 2) == 3"]}, "field tests[0]: it is not Python (invalid syntax). Write an assertion"),
    ({"tests": ["add(1, 2) == 3"]}, "field tests[0]: it asserts nothing. Write: assert add(1, 2) == 3"),
    ({"tests": ["assert add(1, 2) == 3", "assert 1 == 1"]}, "field tests[1]: it uses nothing of the program. Let it call add"),
    ({"tests": ["assert sub(1, 2) == 3"], "hidden_tests": [], "canonical_solution": None}, "field entry_point: no test calls add"),
    ({"tests": ["assert add(1, 2) == math.pi"]}, "field tests[0]: it uses math, which nothing defines. Put `import math` into setup"),
    ({"tests": ["assert add(Pair(), 2) == 3"]}, "it uses Pair, which nothing defines. Define it in setup or"),
    ({"tests": [{"args": [1, 2], "expected": 3}]}, "field hidden_tests: they have another form"),
    ({"tests": ["assert add(1, 2) == 3", {"args": [1, 2], "expected": 3}]}, "field tests[1]: it has another form"),
    ({"tests": [{"input": [1, 2], "output": 3}]}, "field tests[0].input: there is no such field. Did you mean args or stdin?"),
    ({"tests": [{"args": [1, 2]}]}, "field tests[0]: it needs expected"),
    ({"tests": [{"args": 1, "expected": 3}]}, "field tests[0].args: it must be the list of all arguments. Write [1]"),
    ({"tests": [{"stdin": "1", "expected": "3"}]}, "field tests[0]: it is a script's, but the task has the entry point add"),
    ({"tests": [{"stdin": 1, "expected": "3"}], "entry_point": None}, 'field tests[0].stdin: it must be a text. Write "1"'),
    ({"tests": [{"stdin": ["1", "2"], "expected": "3"}], "entry_point": None}, r'must be a text. Write "1\n2".'),
    ({"tests": [3]}, "field tests[0]: it is int, which is no test"),
    ({"entry_point": None}, 'field entry_point: it is missing, and tests[0] calls a function. Name the function, such as "entry_point": "add"'),
    ({"entry_point": "Calc.add"}, "field entry_point: 'Calc.add' is no name"),
    ({"canonical_solution": "def sub(a, b):\n    return a\n"}, "field canonical_solution: it does not define add"),
    ({"canonical_solution": "def add(a, b):\n    return a +\n"}, "field canonical_solution: it is not Python (invalid syntax in line 2)"),
    ({"code": "def sub(a, b):"}, "field code: it does not begin add"),
    ({"code": "def add(a, b"}, "field code: it is not Python"),
    ({"code": WHOLE}, "field code: it holds the whole of add, which the model would be shown"),
    ({"prompt": "def add(a, b):\n"}, "field prompt: it is not Python"),
    ({"prompt": WHOLE}, "field prompt: it is a signature without a docstring"),
    ({"prompt": DOUBLE["prompt"].replace("double", "add"), "code": "x = 1"}, "field code: prompt begins the program already"),
    ({"prompt": " "}, "field prompt: it is empty"),
    ({"prompt": "Add \ud83d."}, r"field prompt: it has half of a character, '\ud83d'"),
    ({"id": "\ud83d"}, "field id: it has half of a character"),
    ({"tests": [{"stdin": "\ud83d", "expected": ""}], "entry_point": None, "hidden_tests": None, "canonical_solution": None}, "field tests: it has half"),
    ({"prompt": ["Add"]}, "field prompt: it must be a text, and is list"),
    ({"id": True}, "field id: True is neither"),
    ({"id": None}, "field id: it is missing"),
    ({"split": "dev"}, "field split: 'dev' is none of train, validation, test"),
    ({"split": "train"}, "field split: some rows have a split and some have none"),
    ({"difficulty": "hard"}, "field difficulty: 'hard' is none of introductory, interview, competition"),
    ({"setup": "import ("}, "field setup: it is not Python"),
    ({"id": "ADD"}, "field id: ADD is the id of"),
])  # fmt: skip
def test_wrong_rows_are_named_with_file_line_and_field(tmp_path, change, said):
    path = write(tmp_path / "mine.jsonl", ADD, ADD | {"id": "second"} | change)
    with pytest.raises(UserError) as error:
        jsonl(path)
    assert str(error.value).startswith(f"{path}, line 2, field ") and said in str(error.value)
    assert "?." not in str(error.value) and str(error.value)[-1] in ".?"


def test_setup_is_for_assertions(tmp_path):
    with pytest.raises(UserError, match="field setup: it runs before assertions"):
        tasks_of(tmp_path, DOUBLE | {"setup": "import math"})


def example_of_docs():
    """The rows that docs/benchmarks.md shows."""
    section = DOCS.read_text().split("## Your own tasks")[1]
    return [json.loads(line) for line in re.findall(r"^\{.*\}$", section, re.MULTILINE)]


def test_the_example_of_the_docs_runs(tmp_path, capsys):
    rows = example_of_docs()
    assert len(rows) == 3 and set().union(*rows) <= set(FIELDS)
    path = write(tmp_path / "tasks.jsonl", *rows)
    whole = [task.canonical_solution for task in jsonl(path).tasks]
    given = [{"task_id": row["id"], "solution": program} for row, program in zip(rows, whole)]
    given += [{"task_id": row["id"], "completion": "    pass\n"} for row in rows]
    programs = write(tmp_path / "programs.jsonl", *given)
    command(
        "evaluate",
        tmp_path,
        "benchmark=jsonl",
        f"benchmark.path={path}",
        f"completions={programs}",
        "logger=none",
        "workers=1",
    )
    (run,) = (tmp_path / "logs/evaluate/runs").iterdir()
    verdicts = [json.loads(line)["verdict"] for line in (run / "verdicts.jsonl").read_text().splitlines()]
    assert verdicts[:3] == ["passed"] * 3 and "passed" not in verdicts[3:]
    results = json.loads((run / "metrics.json").read_text())["results"]
    assert results["given"]["all"]["pass@1"] == 0.5


def look(tmp_path, path):
    composed = config("tasks", tmp_path, "benchmark=jsonl", f"benchmark.path={path}", "workers=1", "print_config=false")
    prepare(composed)
    tasks_command(composed, tmp_path / "fresh")


def test_canonical_solutions_are_judged(tmp_path, capsys):
    look(tmp_path, write(tmp_path / "mine.jsonl", ADD, SUM))
    said = capsys.readouterr().out
    assert "mine: 2 tasks (2 test), 2 public and 1 hidden tests" in said and "Canonical solutions: 2 of 2 pass" in said
    assert '"""\nAdd two numbers.\n' in said
    with pytest.raises(UserError, match="1 of 2 canonical solutions do not pass"):
        look(tmp_path, write(tmp_path / "mine.jsonl", ADD | {"tests": ["assert add(1, 2) == 4"]}, SUM))
    assert "  add: failed: public test 1: its assertion does not hold" in capsys.readouterr().out
    look(tmp_path, write(tmp_path / "mine.jsonl", {**ADD, "canonical_solution": None}))
    assert "No task has a canonical solution" in capsys.readouterr().out
