"""kata: enough tasks, sound ones, split by composition; references right and tidy; every style says the same."""

import ast
import itertools
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from cptlab.judging.lint.pylint_score import score_programs
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.kata import benchmark, corpus
from cptlab.kata.authors import TIDY, draw_author
from cptlab.kata.ops import BY_NAME, OPS
from cptlab.kata.prompts import SHAPES
from cptlab.kata.render import function_body
from cptlab.kata.writer import INPUT_NAMES
from cptlab.records import DIFFICULTIES
from cptlab.tasks.kata import kata, kata_docstring

TASKS, RESERVED = benchmark.build()


def test_enough_tasks_of_every_sort():
    assert len(TASKS) == len({task.id for task in TASKS}) == 1800
    assert Counter(task.difficulty for task in TASKS) == dict.fromkeys(DIFFICULTIES, 600)
    for difficulty in DIFFICULTIES:
        splits = Counter(task.split for task in TASKS if task.difficulty == difficulty)
        assert splits == {"train": 480, "validation": 60, "test": 60}
    assert {task.tags[0] for task in TASKS} == {"int", "ints", "text", "words", "table"}
    kinds = Counter(task.kind for task in TASKS)
    assert min(kinds["call"], kinds["stdin"]) > 300
    assert all(len(task.public_tests) == 2 and len(task.hidden_tests) == 6 for task in TASKS)
    assert len({task.prompt.text for task in TASKS}) == len(TASKS)


def test_every_composition_is_one_task():
    compositions = [(task.kind, *task.tags[1:]) for task in TASKS]
    assert len(set(compositions)) == len(TASKS) and set(compositions) == RESERVED


def test_no_composition_of_the_benchmark_is_pretrained_on(monkeypatch):
    drawn = []
    real = benchmark.is_reserved
    monkeypatch.setattr(benchmark, "is_reserved", lambda key: drawn.append(key) or real(key))
    texts = [document.prompt for document in itertools.islice(corpus.documents(0), 6000)]
    kept = [key for key in drawn if not real(key)]
    assert len(kept) >= len(texts) and len(drawn) > len(kept)  # some were met, and left out
    assert not {key[1:] for key in kept} & {key[1:] for key in RESERVED}
    prompts = {task.prompt.text.split("\n")[0] for task in TASKS}
    assert not prompts & {text.split("\n")[0] for text in texts}


def test_the_benchmark_is_the_same_everywhere():
    code = "from cptlab.tasks.kata import kata; print(kata().fingerprint())"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
        cwd=benchmark.__file__.split("cptlab")[0],
    )
    assert other.stdout.strip() == kata().fingerprint()


def test_references_pass_their_tests():
    verdicts = judge_programs([(task.canonical_solution, task) for task in TASKS], workers=1)
    assert Counter(verdict.status for verdict in verdicts) == {"passed": len(TASKS)}


def test_references_score_ten():
    sample = random.Random(0).sample(TASKS, 150)
    missing = {op.name for op in OPS} - {name for task in sample for name in task.tags[1:]} - {"label"}
    sample += [next(task for task in TASKS if name in task.tags[1:]) for name in sorted(missing)]
    assert {quality.score for quality in score_programs([task.canonical_solution for task in sample], workers=1)} == {
        10.0
    }


def test_tests_tell_programs_apart():
    """The canonical solution of another task of the same type of input fails."""
    rng = random.Random(1)
    calls = [task for task in TASKS if task.kind == "call"]
    pairs = []
    for task in rng.sample(calls, 150):
        other = rng.choice([t for t in calls if t.tags[0] == task.tags[0] and t.id != task.id])
        pairs.append((other.canonical_solution, task))
    passed = sum(verdict.passed for verdict in judge_programs(pairs, workers=1))
    assert passed <= 3


@pytest.mark.parametrize("name", [op.name for op in OPS])
def test_every_style_of_an_operation_computes_the_same(name):
    op = BY_NAME[name]
    rng = random.Random(name)
    steps = [(op, rng.choice(op.constants) if op.constants else None)]
    inputs = [benchmark.draw_input(rng, op.source) for _ in range(4)]
    sound = 0
    for _ in range(40):
        body = function_body(steps, draw_author(rng, tidy_share=0.2), benchmark.empty_result(steps))
        program = f"def solve({INPUT_NAMES[op.source]}):{body}"
        sound += corpus.runs(program, steps, "call", inputs)
    assert sound >= 20  # the rest shadow a builtin that they need, and are left out of the corpus
    tidy = f"def solve({INPUT_NAMES[op.source]}):{function_body(steps, TIDY)}"
    assert corpus.runs(tidy, steps, "call", inputs)


def test_a_program_that_fails_is_left_out_but_a_mistake_of_ours_is_raised(monkeypatch):
    steps = benchmark.draw_steps(random.Random(0), 1)
    inputs = [benchmark.draw_input(random.Random(0), steps[0][0].source)]
    assert not corpus.runs("def solve(value):\n    return missing", steps, "call", inputs)
    assert not corpus.runs("print(int(len))", steps, "stdin", inputs)
    with pytest.raises(SyntaxError):  # which the renderer would have written
        corpus.runs("def solve(", steps, "call", inputs)

    def evaluate(*_):
        raise ValueError("a mistake")

    monkeypatch.setattr(benchmark, "evaluate", evaluate)
    with pytest.raises(ValueError, match="a mistake"):
        corpus.runs("def solve(value):\n    return value", steps, "call", inputs)


def test_prompts_end_at_a_token_boundary_and_name_their_parts():
    for task in TASKS:
        assert not task.prompt.text.endswith(("\n", " "))
        spans = {span.name: task.prompt.text[span.start : span.end] for span in task.prompt.spans}
        assert spans["nl"].endswith("the result.") and set(spans) >= {"nl", "tests"}
        assert spans.get("code", "") == task.prompt.code


def test_the_docstring_shape_asks_the_same_tasks_in_the_programs_own_docstring():
    for task, other in zip(TASKS, kata_docstring().tasks, strict=True):
        assert replace(other, id=task.id, benchmark="kata", prompt=task.prompt) == task
        words = [
            {span.name: one.prompt.text[span.start : span.end].replace("# ", "").split() for span in one.prompt.spans}
            for one in (task, other)
        ]
        assert words[0] == words[1]
        if task.kind == "call":
            assert other.prompt.code == other.prompt.text
            docstring = ast.get_docstring(ast.parse(other.prompt.text).body[0])
            assert docstring.split() == " ".join(task.prompt.text.split('"""')[1].split()).split()
        else:
            assert not ast.parse(other.prompt.text).body and other.prompt.code == ""


def test_reserved_compositions_are_the_same_whatever_the_shape_of_the_prompts():
    texts = [document.prompt for document in itertools.islice(corpus.documents(0, shapes=SHAPES), 2000)]
    leading = sum(text.startswith('"""') for text in texts)
    assert 800 < leading < 1200
    prompts = {" ".join(task.prompt.text.split()) for task in kata_docstring().tasks}
    assert not prompts & {" ".join(text.split()) for text in texts}


def test_a_limit_keeps_the_difficulties_even():
    tasks = kata().split("test", 10)
    assert sorted(Counter(task.difficulty for task in tasks).values()) == [3, 3, 4]
    assert len(kata().split("test")) == 180
