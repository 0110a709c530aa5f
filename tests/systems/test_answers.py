"""The program in an answer, and pairs of such programs: what the model wrote, whole and nothing else."""

from __future__ import annotations

import pytest

from cptlab.backbone import load_backbone
from cptlab.kata.benchmark import build
from cptlab.pairs import make_pair
from cptlab.pairs.selection import Choice
from cptlab.records import Completion, Prompt, Quality, Task
from cptlab.systems.cleaning import cleaned
from cptlab.training.steps.token_pairs import encode_pair

FUNCTION = "def add(a, b):\n    return a + b"
TASK = Task("t/0", "b", "train", "", "check", Prompt('"""Add."""\ndef add(a, b):\n', "def add(a, b):\n"), "add")
CHAT = Prompt("Add.\n```python\n", "", (), ("\n```",), "```")


def answer(text: str, shown: Prompt, finished: bool = True, sample: int = 0) -> Completion:
    return Completion("t/0", sample, text + "\n```", shown.code + text, 9, finished)


@pytest.mark.parametrize(
    "text, program",
    [
        (FUNCTION, None),
        (f"import math\n\n\n{FUNCTION}", None),
        (f"{FUNCTION}\n\n\nprint(add(1, 2))", FUNCTION),
        (f"{FUNCTION}\n\n# Test\nassert add(1, 2) == 4", FUNCTION),
        (f"{FUNCTION}\n\n\ndef main():\n    print(add(1, 2))\n\n\nif __name__ == '__main__':\n    main()", FUNCTION),
        (f"{FUNCTION}\n\n\ndef test_add():\n    assert add(1, 2) == 3\n\ntest_add()", FUNCTION),
        (f"{FUNCTION}\n\n\ndef unfinished(a:", FUNCTION),
        ("def add(a, b):\n    return twice(a) + b\n\n\ndef twice(a):\n    return a + a\n\nadd(1, 2)",
         "def add(a, b):\n    return twice(a) + b\n\n\ndef twice(a):\n    return a + a"),
        (f"{FUNCTION}\n\nimport doctest\ndoctest.testmod()", FUNCTION),
        (f"{FUNCTION}\n\nfrom math import *\nprint(pi)", f"{FUNCTION}\n\nfrom math import *"),
        ("def add(a, b):\n    return math.floor(a + b)\n\nimport math", None),
        (f"{FUNCTION}\n    # done\n\n# Test cases\n# add(1, 2) is 3\n", f"{FUNCTION}\n    # done"),
        (f"{FUNCTION}\n\n", None),
        ("    return a + b", "def add(a, b):\n    return a + b"),
        ("I cannot help with that.", None),
    ],
)  # fmt: skip
def test_the_program_of_a_chat_answer_has_no_tail(text, program):
    made = cleaned(answer(text, CHAT), TASK, CHAT)
    assert made.program.rstrip() == (program or text).rstrip() and made.cleaned == (program is not None)
    assert cleaned(made, TASK, CHAT) is made or not made.cleaned


@pytest.mark.parametrize("blank", ["", "\n", "\n\n", "  \n"])
def test_training_reads_the_line_ends_before_the_closing_fence_as_the_model_wrote_them(blank):
    backbone = load_backbone("kata-lm")
    made = [answer(FUNCTION + blank, CHAT), answer(f"import os\n\n\n{FUNCTION}", CHAT, sample=1)]
    made = [cleaned(one, TASK, CHAT) for one in made]
    task, qualities = Task(**vars(TASK) | {"prompt": CHAT}), [Quality(9.0, 2, False), Quality(5.0, 3, False)]
    pair = make_pair(task, Choice(0, 1, 0.9, 1.0, True), made, qualities, backbone.encode_completion, backbone.decode)
    assert pair.better_finished and pair.better + pair.closing == made[0].raw
    assert pair.worse_finished and pair.worse + pair.closing == made[1].raw


@pytest.mark.parametrize(
    "text, program",
    [
        ("n = int(input())\nfor i in range(n):\n    print(", None),
        ("def f(n):\n    return n\n\nx = list(map(int, input())\nprint(f(x))", None),
        ("n = int(input())\nprint(n)\n\nThis prints the number.", "n = int(input())\nprint(n)"),
        ("Here it is:\n\nn = int(input())\nprint(n)", "n = int(input())\nprint(n)"),
    ],
)
def test_a_part_of_a_script_is_no_program_and_prose_around_it_is_no_part(text, program):
    script = Task("s/0", "b", "test", "", "stdin", Prompt("Print n."))
    made = cleaned(answer(text, CHAT, finished=False), script, CHAT)
    assert made.program.strip() == (program or text) and made.cleaned == (program is not None)


def test_kata_programs_stay_as_they_are():
    for task in build()[0][:60]:
        code = task.prompt.code
        program = task.canonical_solution.removeprefix(code)
        one = Completion(task.id, 0, program, code + program, 9, True)
        assert cleaned(one, task, task.prompt) == one


def test_the_closing_fence_follows_a_finished_program_and_no_mask_covers_it():
    backbone = load_backbone("kata-lm")
    texts = [FUNCTION, "def add(a, b):\n    total = a + b\n    return total", f"{FUNCTION}\n\nprint(add(1, 2))"]
    made = [cleaned(answer(text, CHAT, finished=i != 1, sample=i), TASK, CHAT) for i, text in enumerate(texts)]
    task = Task(**vars(TASK) | {"prompt": CHAT})
    qualities = [Quality(9.0, 2, False), Quality(5.0, 3, False), Quality(4.0, 3, False)]
    for worse in (1, 2):
        pair = make_pair(
            task, Choice(0, worse, 0.9, 1.0, True), made, qualities, backbone.encode_completion, backbone.decode
        )
        assert pair.instruction == CHAT.text and pair.better == FUNCTION + "\n" and pair.worse.startswith("def add")
        tokens = encode_pair(pair, backbone, append_eos=True)
        ids, mask = tokens.better
        fence = backbone.encode_completion("```")
        assert ids == [*backbone.encode_completion(FUNCTION + "\n"), *fence, backbone.eos_id]
        assert mask[-len(fence) - 1 :] == [0] * (len(fence) + 1) and len(mask) == len(ids)
        assert tokens.worse[0] == backbone.encode_completion(
            pair.worse
        )  # cut off, or followed by a tail: no end is shown
        assert pair.worse == made[worse].program
