"""Special tokens that a model left in its text. The truth is the syntax tree of the program without them."""

import ast

import pytest

from cptlab.judging.cleaning.clean import clean
from cptlab.records import Prompt, Task

PROMPT = "def f(n):\n"
BODY = "    total = 2 * n\n    return total % 1.0"
TASK = Task("t/0", "b", "test", "", "check", Prompt(PROMPT, PROMPT), "f")
SCRIPT_TASK = Task("s/0", "b", "test", "", "stdin", Prompt("Print n.\n"))
TOKENS = (
    "<|endoftext|> <|im_end|> <|eot_id|> <|END_OF_TURN_TOKEN|> <|endof <｜end▁of▁sentence｜> <｜User｜> </s> <s> <unk> <pad> <eos> "
    "<EOT> ▁<EOT> <EOD> <END> <eop> <file_sep> <fim_middle> <fim-prefix> <jupyter_output> <gh_stars> <end_of_turn> "
    "<start_of_turn> <seed:eos> <reserved_106> <SPECIAL_12> <extra_id_0> <0x0A> <</SYS>> </answer> [|endofturn|] [/INST] [INST] "
    "[DONE] [EOS] [BOS] [PAD] [gMASK] [UNUSED_TOKEN_145] [TOOL_CALLS] <turn|> <|turn> [e~[ ]~b]"
).split()


def tree(program: str) -> str:
    return ast.dump(ast.parse(program))


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_ends_the_program(token):
    after = ["", "\n"]
    if token != "<|endof":  # cut off, so nothing follows
        after += [token, "\nand so on (", f"{token}\n\nNow the next (task"]
        after += ["def g(x):\n    return 1\n", "\n\ndef g(x):\n    return 1\n\n\nassert g(1)\n"]
    for before in ("", " ", "\n", "\n\n"):
        for rest in after:
            assert tree(clean(f"{BODY}{before}{token}{rest}", TASK, False)) == tree(PROMPT + BODY), (before, rest)
        assert tree(clean(f"{PROMPT}{BODY}{before}{token}", TASK, True)) == tree(PROMPT + BODY), before
    assert tree(clean(f"{token}\n{BODY}\n", TASK, False)) == tree(PROMPT + BODY)
    assert tree(clean(f"n = input()\nprint(n){token}", SCRIPT_TASK, True)) == tree("n = input()\nprint(n)")


HONEST = (
    "def f(n):\n    a, b, c = 1, n, 3\n    return a<b>c\n",
    "def f(n):\n    a, b, c = 1, n, 3\n    return (a <b>\n            c)\n",
    "def f(n):\n    EOS = 0\n    t = [n]\n    return t[EOS]\n",
    "from config import *\n\n\ndef f(n):\n    return n[EOS]\n",
    "def f(n):\n    '''Return <b>\n    </s>\n    [DONE]\n    <|im_end|>\n    '''\n    return n.split('</s>')[0]\n",
    'def f(n):\n    return {"<eos>": 1, "[EOS]": "<|endoftext|>"}[n]  # not </s>\n',
    "def f(n):\n    return [\n        '<pad>', '[/INST]',\n        'it\\'s <eos>'\n    ]\n",
    "def f(n: 'list<int>') -> 'dict<int>':\n    return n<<2>>1\n",
)  # fmt: skip


@pytest.mark.parametrize("program", HONEST)
def test_honest_programs_keep_what_looks_like_a_token(program):
    assert clean(program, TASK, True) == program
    if "(a <b>" not in program and "*" not in program:
        for wrapping in ("Sure:\n```python\n{p}```\nIt's <done> (I think", "{p}<|im_end|>", "{p}\n[DONE]\nIt's (next"):
            assert tree(clean(wrapping.replace("{p}", program), TASK, True)) == tree(program), wrapping


def test_the_names_of_the_prompt_are_no_tokens():
    prompt = "EOS = 0\n\n\ndef f(n):\n"
    task = Task("t/1", "b", "test", "", "check", Prompt(prompt, prompt), "f")
    assert clean("    return n[EOS]", task, False) == prompt + "    return n[EOS]"


@pytest.mark.parametrize("token", ["@@END@@", "~", "(stop)", "###END"])
def test_tokens_that_the_user_names(token):
    assert tree(clean(f"{BODY}{token}", TASK, False, [token])) == tree(PROMPT + BODY)
    assert tree(clean(f"{BODY}\n{token} and so on (", TASK, False, [token])) == tree(PROMPT + BODY)
    program = f"{PROMPT}    return {token!r}\n"
    assert clean(program, TASK, True, [token]) == program


@pytest.mark.parametrize(
    "newer",
    [
        "type X = int\n\n\ndef f(n: X):\n    return n\n",
        "type X[T] = list[T]\n\n\ndef f(n):\n    return n\n",
        "def first[T](xs: list[T]) -> T:\n    return xs[0]\n\n\ndef f(n):\n    return first([n])\n",
        "class Box[T]:\n    pass\n\n\ndef f(n):\n    return n\n",
        "def f(n):\n    return n\n\n\ntype X = int\n",
        "def f(n):\n    return n\n\n\nprint(f\"{f(\"1\")}\")\n",
        'def f(n):\n    return n\n\n\nprint "loaded"\n',
    ],
)  # fmt: skip
def test_statements_of_another_python_are_not_cut_off(newer):
    try:
        ast.parse(newer)
    except SyntaxError:
        pass
    else:
        pytest.skip("this Python knows them")
    assert clean(newer, TASK, True) == newer
    assert clean(f"Sure:\n```python\n{newer}```\nBye (", TASK, True).strip() == newer.strip()
