"""SVEN's scenarios: each prompt is the beginning that the safe and the unsafe function share, and the safe one goes on."""

import json
import textwrap

import pytest

from cptlab.errors import UserError
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.tasks.sven import sven


def row(after, before, file_name="a.py", cwe="cwe-089"):
    return {"func_src_after": after, "func_src_before": before, "file_name": file_name, "vul_type": cwe}


SAFE = '    def find(self, name):\n        text = "x"\n        return run(text, [name])'
UNSAFE = SAFE.replace("run(text, [name])", "run(text % name)")


def test_what_is_a_scenario(tmp_path):
    rows = [
        row(SAFE, UNSAFE),
        row(SAFE, SAFE.replace("name):", "title):")),  # the header differs
        row(SAFE, UNSAFE, "a.c"),
        row(SAFE.replace("    def", "    @app.route\n    def"), UNSAFE.replace("    def", "    @app.route\n    def")),
        row("def f():\n    print 1\n", "def f():\n    print 2\n"),  # Python 2
    ]
    for folder in ("train", "val"):
        (tmp_path / "sven" / folder).mkdir(parents=True)
        (tmp_path / "sven" / folder / "cwe-089.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    tasks = sven(str(tmp_path)).tasks
    assert [(task.id, task.split) for task in tasks] == [
        ("SVEN/train/cwe-089/1", "train"),
        ("SVEN/val/cwe-089/1", "test"),
    ]
    assert tasks[1].prompt.text == tasks[1].prompt.code == 'def find(self, name):\n    text = "x"\n'
    for wrong, message in (({"cwes": ["cwe-022"]}, "Choose from cwe-089"),):
        with pytest.raises(UserError, match=message):
            sven(str(tmp_path), **wrong)


@pytest.mark.data
def test_the_safe_functions_of_the_held_out_files_begin_with_the_prompt_and_load(data_dir):
    tasks = sven(str(data_dir)).split("test")
    assert len(tasks) == 33 and {task.tags[0] for task in tasks} == {"cwe-022", "cwe-078", "cwe-079", "cwe-089"}
    for task in tasks:
        assert task.canonical_solution is not None and task.canonical_solution.startswith(task.prompt.text.rstrip("\n"))
        assert textwrap.dedent(task.prompt.text) == task.prompt.text
    verdicts = judge_programs([(str(task.canonical_solution), task) for task in tasks])
    assert all(verdict.passed for verdict in verdicts)
    broken = judge_programs([(task.prompt.text + "    ) (", task) for task in tasks])
    assert not any(verdict.passed for verdict in broken)
