"""The parts of a system, each against a reference of its own: prompts, selection, post-processing."""

import ast
import subprocess
import sys
import tempfile

import pytest

from cptlab.errors import UserError
from cptlab.kata.benchmark import build
from cptlab.records import Prompt, Quality, Span
from cptlab.systems import System
from cptlab.systems.post_processing import RuffFix
from cptlab.systems.post_processing.ruff_fix import PYTHON, SELECT
from cptlab.systems.prompts import CleanCode
from cptlab.systems.selection import BestOf
from cptlab.tasks.docstrings import docstring_prompt
from cptlab.tasks.template import apply_template

TASKS = [task for task in build()[0] if task.split == "test"]
SENTENCE = CleanCode().sentence
DOCSTRING = docstring_prompt(
    'def pick(items):\n    """Pick the items\n    that are even.\n\n    >>> pick([1, 2])\n    [2]\n    """\n',
    "pick",
    256,
)
ANCHORED = Prompt("Sort in descending order.\n>>> f()\ndef f():", "def f():", (
    Span("anchor", 5, 25), Span("nl", 0, 25), Span("anchor", 8, 18), Span("tests", 26, 33), Span("shots", 0, 33),
    Span("code", 34, 42),
))  # fmt: skip
PROMPTS = [*(task.prompt for task in TASKS[:12]), DOCSTRING, ANCHORED]


def texts(prompt: Prompt) -> list[tuple[str, str]]:
    return [(span.name, prompt.text[span.start : span.end]) for span in prompt.spans]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_sentence_stands_in_the_description_and_nothing_else_moves(prompt):
    changed = CleanCode().apply(prompt)
    assert changed.text.replace(f" {SENTENCE}", "", 1) == prompt.text and changed.text.count(SENTENCE) == 1
    first = next(i for i, span in enumerate(prompt.spans) if span.name == "nl")
    place = prompt.spans[first].end
    for i, ((name, before), (new_name, after), span) in enumerate(
        zip(texts(prompt), texts(changed), prompt.spans, strict=True)
    ):
        assert name == new_name
        around = span.start < place < span.end
        assert after == (f"{before} {SENTENCE}" if i == first else after if around else before)
        if around:  # a span that reaches beyond the description holds the sentence, too
            cut = place - span.start
            assert after == f"{before[:cut]} {SENTENCE}{before[cut:]}"
    assert changed.text.endswith(changed.code) and changed.code.replace(f" {SENTENCE}", "") == prompt.code


def test_a_docstring_stays_one_and_its_sentence_is_part_of_the_code():
    changed = CleanCode().apply(DOCSTRING)
    function = ast.parse(changed.text).body[0]
    assert isinstance(function, ast.FunctionDef) and SENTENCE in (ast.get_docstring(function) or "")
    assert SENTENCE in changed.code == changed.text
    for task in TASKS[:12]:
        changed = CleanCode().apply(task.prompt)
        tree = ast.parse(changed.text + ("\n    pass" if changed.code else ""))
        assert SENTENCE in ast.unparse(tree.body[0]) and changed.code == task.prompt.code


def test_it_works_with_a_template_and_leaves_a_prompt_without_a_description():
    template = "Q: {nl} | {tests} A:\n{code}"
    for prompt in PROMPTS[:12]:
        plain, changed = apply_template(prompt, template), apply_template(CleanCode("Be tidy.").apply(prompt), template)
        assert changed.text == plain.text.replace(" | ", " Be tidy. | ", 1)
        assert [name for name, _ in texts(changed)] == [name for name, _ in texts(plain)]
    bare = Prompt("def f():", "def f():", (Span("code", 0, 8),))
    assert CleanCode().apply(bare) is bare


def test_anchors_behind_the_sentence_are_masked_where_they_stand():
    from cptlab.backbone import load_backbone
    from cptlab.decoding import Masked

    backbone = load_backbone("kata-lm")
    for prompt in PROMPTS[:6]:
        gone = []
        for one in (prompt, CleanCode().apply(prompt)):
            masked, clean = Masked(["tests"]).stream(backbone, one), backbone.encode_prompt(one.text)
            assert masked is not None and len(masked.ids) == len(clean)
            gone.append(backbone.decode([a for a, b in zip(clean, masked.ids, strict=True) if a != b]))
        assert gone[0] == gone[1]


def test_the_first_of_the_best_is_kept():
    scores = [3.0, 9.5, 0.0, 9.5, 9.4]
    assert BestOf().choose([Quality(score, 1, False) for score in scores]) == 1
    assert BestOf(1).choose([Quality(0.0, 0, True)]) == 0
    with pytest.raises(UserError, match="draws=0 cannot be"):
        BestOf(0)


PROGRAMS = [
    "def solve(x):\n    if x == 1:\n        return 1\n    else:\n        return 2\n",
    "def solve(a,b):\n  t = 3\n  return (a)\n",
    "import os\nimport sys\nx = [i for i in y]\nprint(f'a')",
    "def solve(x):\n    return (",
    "def f(s):\n    pass\n    return '{} {}'.format(s, s)\n",
    "x = 1 \r\ny=2\r\n",
    "x = '\ud800'",
    "",
    "def g[T](x): return x\n",
    *(task.canonical_solution for task in TASKS[:5]),
]


@pytest.mark.parametrize("unsafe", [False, True])
def test_ruff_does_to_each_program_what_its_command_does(unsafe, tmp_path, monkeypatch):
    expected = []
    for number, program in enumerate(PROGRAMS):
        file = tmp_path / "reference" / str(number) / "mine.py"
        file.parent.mkdir(parents=True)
        file.write_bytes(program.encode("utf-8", "surrogatepass"))
        common = ["--isolated", "--no-cache", "-q", f"--target-version={PYTHON}", str(file)]
        fix = ["--unsafe-fixes"] if unsafe else []
        for arguments in (["check", "--fix", *fix, "--select", ",".join(SELECT)], ["format"]):
            subprocess.run([sys.executable, "-m", "ruff", *arguments, *common], capture_output=True)
        expected.append(file.read_bytes().decode("utf-8", "surrogatepass"))
    (tmp_path / "ruff.toml").write_text('line-length = 20\nindent-width = 2\nexclude = ["*"]\n')  # a user's own
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = RuffFix(unsafe_fixes=unsafe).apply(PROGRAMS)
    assert found == expected
    assert found[3] == PROGRAMS[3] and found[6] == PROGRAMS[6], "what cannot be parsed stays as it is"
    assert "else" not in found[0] and "import os" not in found[2] and ("t = 3" in found[1]) is not unsafe
    assert RuffFix(unsafe_fixes=unsafe).apply(found) == found
    assert RuffFix().apply([]) == []


def test_ruff_refuses_a_rule_that_it_does_not_know():
    with pytest.raises(UserError, match="XYZ1"):
        RuffFix(select=["XYZ1"]).apply([])
    assert set(RuffFix().versions()) == {"ruff"}


def test_a_system_s_own_mistakes():
    for wrong, said in (
        ({"run": "latest"}, "but no adapter"),
        ({"adapter": "lorra"}, "any, prefix, lora or full"),
        ({"name": "a/b"}, "cannot be called"),
    ):
        with pytest.raises(UserError, match=said):
            System(**({"name": "mine"} | wrong))


def test_a_system_is_made_without_torch():
    code = "import sys; from cptlab.systems import System; System('x'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
