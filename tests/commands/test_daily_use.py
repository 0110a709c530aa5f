"""`cptlab generate`, `cptlab lint` and `cptlab.load`, against a stored evaluation and the `pylint` command."""

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from made_runs import make_evaluated_run
from rich.console import Console

import cptlab
from cptlab.adapters import Policy
from cptlab.commands import generate, lint
from cptlab.commands.shared.programs_view import Answer, print_answers
from cptlab.errors import UserError
from cptlab.judging.lint.pylint_checks import pylint_flags
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.records import Completion, Message, Quality, Task
from cptlab.storage.jsonl import as_data, read_jsonl

UNTIDY = "def f(list):\n    unused = 1\n    return(list)  # pylint: disable=all\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(directory, training run, evaluation)."""
    return make_evaluated_run(tmp_path_factory.mktemp("daily"))


@pytest.fixture(scope="module")
def model(made):
    return cptlab.load("latest", logs=made[0] / "logs")


def stored(made, system, name, kind):
    return list(read_jsonl(made[2] / system / f"{name}.jsonl", kind))


def test_the_programs_are_those_of_an_evaluation(made, model):
    """Greedily, for the benchmark's own prompts: with and without the prefix."""
    tasks = list(read_jsonl(made[2] / "tasks.jsonl", Task))
    for system, omega in (("base", 0), ("tuned", 1)):
        expected = {one.task_id: one.program for one in stored(made, system, "completions", Completion)}
        found = {task.id: model.generate(task.prompt.text, temperature=0, omega=omega)[0] for task in tasks}
        assert found == expected
    assert stored(made, "base", "completions", Completion) != stored(made, "tuned", "completions", Completion)


def test_a_run_its_prefix_and_a_copy_of_the_prefix_are_the_same_model(made, model, tmp_path):
    run = made[1]
    copied = shutil.copytree(run / "prefix", tmp_path / "prefix")
    prompt = "def solve(words):"
    expected = model.generate(prompt, 2, seed=5, max_new_tokens=30)
    for place in (run, run / "prefix", copied):
        loaded = cptlab.load(place)
        assert loaded.generate(prompt, 2, seed=5, max_new_tokens=30) == expected
        assert loaded.prefix.digest() == model.prefix.digest()
    assert model.generate(prompt, 2, seed=6, max_new_tokens=30) != expected
    assert model.model.config.model_type == "llama" and model.tokenizer.eos_token


def test_importing_cptlab_stays_light():
    code = "import cptlab, sys; print([name for name in ('torch', 'hydra', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_dial_is_for_prefixes(model):
    class Other:
        kind = "lora"

        def policy(self, backbone):
            return Policy(backbone)

    other = replace(model, adapter=Other())
    assert other.generate("def f(x):", omega=0) == model.generate("def f(x):", omega=0)
    with pytest.raises(UserError, match="omega=1.5 cannot be: .* kind lora, and the dial needs a prefix"):
        other.generate("def f(x):", omega=1.5)


def test_generate_prints_both_and_json_says_the_same(made, model, capsys):
    arguments = ["--json", f"run={made[1]}", "n=2", "--omega", "1.5", "max_new_tokens=30", "def solve(words):"]
    assert generate.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    for name, omega in (("base", 0), ("tuned", 1.5)):
        programs = model.generate("def solve(words):", 2, omega=omega, max_new_tokens=30)
        assert [one["program"] for one in found[name]] == programs
        assert [one["quality"]["score"] for one in found[name]] == [
            score_programs([program])[0].score for program in programs
        ]
    assert found["omega"] == 1.5 and found["backbone"] == model.backbone.name
    assert generate.main(arguments[1:]) == 0
    text = capsys.readouterr().out
    for name, heading in (("base", "base: pylint"), ("tuned", "tuned (omega 1.5): pylint")):
        for one in found[name]:
            assert f"{heading} {one['quality']['score']:.2f}\n{one['program'].rstrip()}\n" in text


def test_generate_reads_standard_input(made, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"def solve(words):\n")))
    assert generate.main([f"run={made[1]}", "temperature=0", "max_new_tokens=30", "-"]) == 0
    piped = capsys.readouterr().out
    assert generate.main([f"run={made[1]}", "temperature=0", "max_new_tokens=30", "def solve(words):"]) == 0
    assert capsys.readouterr().out == piped and "def solve(words):" in piped


@pytest.mark.parametrize("arguments, sentence", [
    ([], "The prompt is missing"),
    (["sort", "a", "list"], "There are 3 prompts, the second is 'a'. Put quotes around"),
    (["  "], "The prompt is empty"),
    (["n=0", "x"], "n=0 cannot be: it must be a whole number from 1 up"),
    (["n=3", "temperature=0", "x"], "n=3 programs would all be the same at temperature=0"),
    (["omga=2", "x"], "There is no setting omga. Did you mean omega?"),
    (["omega=much", "x"], "omega=much cannot be: it must be a number"),
    (["prompting=talk", "x"], "prompting=talk cannot be: it must be auto, base or chat, or null"),
    (["run=nowhere", "x"], "nowhere is no finished training run"),
    (["logs=nowhere", "x"], "There is no finished training run with an adapter"),
    (["device=tpu", "x"], "There is no device 'tpu'"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(made, arguments, sentence, capsys):
    logs = [] if any(one.startswith("logs") for one in arguments) else [f"logs={made[0] / 'logs'}"]
    assert generate.main([*logs, *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and sentence in said.err and said.out == ""


def printed(answers, width, terminal=True) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, color_system=None)
    print_answers(answers, console)
    return file.getvalue()


def test_programs_stand_side_by_side_where_there_is_room():
    bad = Quality(5.0, 2, False, (Message("W0612", "unused-variable", 2),))
    answers = {
        "base": [Answer("x = 1\n\x1b[31my = [2]", bad, 9, False)],
        "tuned": [Answer("z = 3\n", Quality(10, 1, False), 4, True)],
    }
    wide, narrow, piped = printed(answers, 140), printed(answers, 70), printed(answers, 140, terminal=False)
    assert re.search(r"base: pylint 5.00 +tuned: pylint 10.00", wide) and re.search(r"1 x = 1 +1 z = 3", wide)
    assert max(map(len, wide.split("\n"))) <= 140
    for text in (narrow, piped):
        assert text.index("tuned: pylint 10.00") > text.index("line 2: W0612 (unused-variable)") > text.index("base")
    for text in (wide, narrow):
        assert "\x1b[31m" not in text and r"\x1b[31my = [2]" in text and "cut off after 9 tokens" in text
    assert "base: pylint 5.00\nx = 1\n\x1b[31my = [2]\n\n  line 2" in piped  # as the model wrote it


def test_lint_agrees_with_the_judge(made, tmp_path, capsys):
    """To the last bit, with every quality that the evaluation stored."""
    expected = {}
    for system in ("base", "tuned"):
        programs = stored(made, system, "completions", Completion)
        for number, (one, quality) in enumerate(zip(programs, stored(made, system, "quality", Quality), strict=True)):
            file = tmp_path / f"{system}{number}.py"
            file.write_bytes(one.program.encode())
            expected[str(file)] = quality
    assert lint.main([*expected, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for file, quality in expected.items():
        one = found["files"][file]
        assert one == as_data(quality)
    scores = [quality.score for quality in expected.values()]
    assert found["all"]["mean"] == pytest.approx(sum(scores) / len(scores)) and found["all"]["files"] == len(scores)
    assert (found["all"]["min"], found["all"]["max"]) == (min(scores), max(scores))


def test_lint_refuses_a_check_that_pylint_does_not_have(tmp_path, capsys):
    file = tmp_path / "given.py"
    file.write_text(UNTIDY)
    assert lint.main(["--extra-disabled", "W9999", str(file)]) == 2
    assert "extra_disabled has W9999, and pylint has no such message" in capsys.readouterr().err


def test_lint_agrees_with_the_pylint_command(tmp_path, capsys):
    """Behind a pragma that is not obeyed: the command gets the program with `pylint:` made harmless."""
    given, plain = tmp_path / "given.py", tmp_path / "plain.py"
    given.write_text(UNTIDY)
    plain.write_text(UNTIDY.replace("pylint:", "pylint;"))
    command = [sys.executable, "-m", "pylint", *pylint_flags(["W0622"]), "--output-format=json2", str(plain)]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert lint.main(["--json", "extra_disabled=W0622", str(given)]) == 0
    ours = json.loads(capsys.readouterr().out)["files"][str(given)]
    assert ours["score"] == pytest.approx(theirs["statistics"]["score"], abs=0.005) and ours["pragmas"] == 1
    assert [(one["id"], one["line"]) for one in ours["messages"]] == [
        (one["messageId"], one["line"]) for one in theirs["messages"]
    ]


def test_lint_prints_messages_and_says_by_its_exit_code_what_is_below(tmp_path, monkeypatch, capsys):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("X = 1\n")
    bad.write_text(UNTIDY)
    assert lint.main([str(good), str(bad), "--fail-under", "9"]) == lint.BELOW == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{good}: 10.00/10 (1 statement, 0 messages)"
    assert f"{bad}:2: W0612 (unused-variable)" in lines and "1 pragma not obeyed" in lines[-3]
    assert lines[-1].startswith("2 files: mean ")
    assert lint.main([str(good), "--fail-under", "9"]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(UNTIDY.encode())))
    capsys.readouterr()
    assert lint.main(["-"]) == 0 and "standard input:2: W0612" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, sentence", [
    ([], "No file is named"),
    (["nowhere.py"], "There is no file nowhere.py"),
    (["."], ". is a directory. Name its files, such as ./*.py"),
    (["latin.py"], "latin.py is not UTF-8 (byte 1)"),
    (["fail_under=11", "latin.py"], "fail_under=11 cannot be: it must be a number from 0 to 10"),
])  # fmt: skip
def test_a_file_that_cannot_be_linted_is_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.py").write_bytes(b"#\xe9\n")
    assert lint.main(arguments) == 2 and sentence in capsys.readouterr().err
