"""Perturbed benchmarks: what changes, what stays, and the worst case over the perturbations of a task."""

import ast
import itertools
import re
from dataclasses import replace

import pytest

from cptlab.errors import UserError
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.metrics.definitions import find_metric
from cptlab.metrics.programs import JudgedProgram
from cptlab.metrics.summary import flat_names, summarise
from cptlab.records import Prompt, Quality, Span, Verdict
from cptlab.tasks.benchmark import Benchmark
from cptlab.tasks.humaneval import humaneval
from cptlab.tasks.kata import kata
from cptlab.tasks.perturbations import KINDS, edited
from cptlab.tasks.perturbed import perturbed


def cut(benchmark, count):
    return Benchmark(benchmark.name, benchmark.tasks[:count])


FIRST_OF_KATA = cut(kata(), 12)


def parts(prompt, name):
    return [prompt.text[span.start : span.end] for span in prompt.spans if span.name == name]


def test_edits_move_code_and_spans():
    prompt = Prompt("# Add two.\ndef add(a):", "def add(a):", (Span("nl", 2, 10), Span("code", 11, 22)))
    for edits in itertools.combinations(
        [(0, 0, "x"), (2, 5, "Sum up"), (5, 6, ""), (10, 10, "!"), (11, 11, "\n"), (15, 18, "f")], 3
    ):
        changed = edited(prompt, edits)
        (nl,), (code,) = parts(changed, "nl"), parts(changed, "code")
        new = dict((start, text) for start, _, text in edits)
        assert nl == new.get(2, "Add") + new.get(5, " ") + "two."
        assert code == changed.code == f"def {new.get(15, 'add')}(a):"
        assert changed.text == new.get(0, "") + "# " + nl + new.get(10, "") + "\n" + new.get(11, "") + code


@pytest.mark.data
@pytest.mark.parametrize("kind", KINDS)
def test_perturbations_change_what_they_say_and_the_solution_still_passes(kind, data_dir):
    for of in (cut(humaneval(str(data_dir)), 12), FIRST_OF_KATA):
        benchmark = perturbed(of, kind, count=3)
        assert benchmark == perturbed(of, kind, count=3) != perturbed(of, kind, count=3, seed=1)
        assert len(benchmark.tasks) == 36 and len({task.id for task in benchmark.tasks}) == 36
        before = {task.id: task for task in of.tasks}
        changed = 0
        for task in benchmark.tasks:
            old = before[task.variant_of]
            changed += task.prompt != old.prompt
            assert task.split == old.split and [span.name for span in task.prompt.spans] == [
                s.name for s in old.prompt.spans
            ]
            assert task.prompt.text.endswith(task.prompt.code)
            if task.prompt.code:
                ast.parse(task.prompt.code + ("\n    pass" if old.benchmark == "kata" else ""))
            if kind == "docstring":
                assert task.prompt.code == old.prompt.code or old.benchmark != "kata"
                assert parts(task.prompt, "code") == parts(old.prompt, "code")
                assert parts(task.prompt, "tests") == parts(old.prompt, "tests")
            elif kind == "format":
                assert re.sub(r"[\s#]", "", task.prompt.text) == re.sub(r"[\s#]", "", old.prompt.text)
            elif old.entry_point:
                assert task.entry_point != old.entry_point and f"def {task.entry_point}(" in task.prompt.code
                assert f"{old.entry_point}(" not in task.prompt.text
        assert changed == 36 or (kind == "function_name" and changed == 3 * sum(t.kind != "stdin" for t in of.tasks))
        verdicts = judge_programs([(str(task.canonical_solution), task) for task in benchmark.tasks[::3]])
        assert all(verdict.passed for verdict in verdicts)


def test_names_of_the_signature_stay_in_the_description():
    head, words = 'def pick(numbers: list, threshold: int) -> list:\n    """', "Return numbers above threshold, sorted."
    text = f'{head}{words}\n    """\n'
    spans = (Span("code", 0, len(head)), Span("nl", len(head), len(head) + len(words)))
    task = replace(FIRST_OF_KATA.tasks[0], prompt=Prompt(text, text, spans), question=None, entry_point="pick")
    found = perturbed(Benchmark("own", (task,)), "docstring", count=40).tasks
    for one in found:
        assert one.prompt.text != text and one.prompt.code == one.prompt.text
        (said,) = parts(one.prompt, "nl")
        assert re.search(r" numbers .* threshold", said.replace("a pair of", "")) and said != words


def test_the_robust_metrics_are_the_worst_case_over_perturbations():
    tasks = perturbed(cut(FIRST_OF_KATA, 2), count=2).tasks
    right = {0: (1, 1, 0, 1), 1: (0, 1, 1, 1), 2: (1, 1, 1, 1), 3: (1, 0, 0, 0)}  # by task, then by program
    scores = {0: 8.0, 1: 4.0, 2: 6.0, 3: 9.0}
    programs = {
        task.id: [
            JudgedProgram(Quality(scores[i], 1, False), Verdict("passed" if one else "failed")) for one in right[i]
        ]
        for i, task in enumerate(tasks)
    }
    found = summarise(tasks, programs, [1, 2])["all"]
    assert found["robust_pass@1"] == pytest.approx((2 / 4 + 1 / 4) / 2)  # both right: programs 1 and 3; program 0
    assert found["robust_pass@2"] == pytest.approx(((1 - 1 / 6) + (1 - 3 / 6)) / 2)
    assert found["robust_quality"] == pytest.approx((4 + 6) / 2) and found["pass@1"] == pytest.approx(11 / 16)
    names = {name for name in flat_names(tasks, ["base"], [1, 2], 4, tokens=False) if name.startswith("base/all/")}
    assert {f"base/all/{name}" for name in found if not name.endswith("_ci") and found[name] is not None} == names
    for name in ("robust_pass@2", "robust_quality"):
        assert find_metric(name).name == name
    plain = [replace(task, variant_of="") for task in tasks]
    assert "robust_pass@1" not in summarise(plain, programs, [1])["all"]


def test_a_limit_keeps_the_perturbations_of_a_task_together():
    benchmark = perturbed(kata(), count=2)
    kept = benchmark.split("test", 5)
    assert len(kept) == 6 and len({task.variant_of for task in kept}) == 3 == len({task.difficulty for task in kept})
    scripts = Benchmark("scripts", tuple(task for task in kata().tasks if task.kind == "stdin")[:3])
    with pytest.raises(UserError, match="kind=function_name"):
        perturbed(scripts, "function_name")
