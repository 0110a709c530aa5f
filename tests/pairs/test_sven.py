"""SVEN's before/after functions as pairs: what each part holds, and that a prefix can be trained on them."""

import json

import pytest

from cptlab.errors import UserError
from cptlab.pairs import read_pairs, write_pairs
from cptlab.pairs.sven import sven_pairs


def encode(text):
    """A tokenizer whose tokens are characters."""
    return [ord(character) for character in text]


def write(folder, **files):
    for name, rows in files.items():
        split, cwe = name.split("_", 1)
        path = folder / "sven" / split / f"{cwe.replace('_', '-')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def row(before, after, file_name="app.py", cwe="cwe-089"):
    return {"func_src_before": before, "func_src_after": after, "file_name": file_name, "vul_type": cwe}


BEFORE = "def get(name):\n    query = 'select ' + name\n    return run(query)\n"
AFTER = "def get(name):\n    query = 'select ?'\n    return run(query, name)\n"


def test_a_pair_is_header_fixed_and_flawed_rest(tmp_path):
    pairs, counts = sven_pairs(write(tmp_path, train_cwe_089=[row(BEFORE, AFTER)]), encode, 1000)
    (pair,) = pairs
    assert counts == {"read": 1, "equal": 0, "too_long": 0}
    assert pair.instruction == "def get(name):"
    assert (pair.instruction + pair.better, pair.instruction + pair.worse) == (AFTER, BEFORE)
    assert (pair.better_score, pair.worse_score, pair.difficulty, pair.split) == (1.0, 0.0, "cwe-089", "train")
    kept = ["".join(c for c, m in zip(text, mask, strict=True) if not m)
            for text, mask in ((pair.better, pair.better_mask), (pair.worse, pair.worse_mask))]  # fmt: skip
    assert kept[0] == kept[1] and any(pair.better_mask) and any(pair.worse_mask)


@pytest.mark.parametrize("before, after, name, instruction", [
    ("def f(a):\n    x()\n", "def f(a, b):\n    x()\n", "m.py", "# m.py"),
    ("def f(a,\n      b):\n    x()\n", "def f(a,\n      b):\n    y()\n", "m.py", "def f(a,\n      b):"),
    ("@p\r\ndef f(a):\r\n    x()\r\n", "@p\r\ndef f(a):\r\n    y()\r\n", "m.py", "@p\ndef f(a):"),
    ("int f(int a)\n{\n  x();\n}", "int f(int a)\n{\n  y();\n}", "m.c", "int f(int a)\n{"),
    ("int f(int a)\n{\n  x();\n}", "long f(int a)\n{\n  x();\n}", "m.c", "// m.c"),
])  # fmt: skip
def test_instructions(tmp_path, before, after, name, instruction):
    data = write(tmp_path, train_cwe_078=[row(before, after, name, "cwe-078")])
    (pair,) = sven_pairs(data, encode, 1000, language="all")[0]
    assert pair.instruction == instruction and pair.better.startswith("\n")
    assert (instruction + pair.better).endswith(after.replace("\r\n", "\n"))


def test_what_is_left_out_is_counted(tmp_path):
    rows = [row(BEFORE, AFTER), row(BEFORE, BEFORE), row(BEFORE, AFTER + "# long" * 99), row("a(){", "b(){", "x.c")]
    data = write(tmp_path, train_cwe_089=rows, val_cwe_089=[row(BEFORE, AFTER)], train_cwe_078=[row(BEFORE, AFTER)])
    pairs, counts = sven_pairs(data, encode, 200, cwes=["cwe-089"])
    assert counts == {"read": 4, "equal": 1, "too_long": 1}
    assert [(pair.task_id, pair.split) for pair in pairs] == [("sven/train/cwe-089/1", "train"),
                                                              ("sven/val/cwe-089/1", "validation")]  # fmt: skip
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl", encode) == pairs
    assert len(sven_pairs(data, encode, 200, language="all")[0]) == 4


def test_mistakes_have_a_remedy(tmp_path):
    for directory in (None, str(tmp_path)):
        with pytest.raises(UserError, match="not on the Hugging Face hub.*CPTLAB_DATA_DIR"):
            sven_pairs(directory, encode, 100)
    data = write(tmp_path, train_cwe_089=[row(BEFORE, AFTER)])
    for settings, said in (({"language": "c"}, "language=c"), ({"cwes": ["cwe-1"]}, "no cwe-1.*cwe-089"),
                           ({"max_tokens": 9}, "1 have more than 9 tokens")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            sven_pairs(data, encode, **{"max_tokens": 500} | settings)
    write(tmp_path, train_cwe_089=[row(BEFORE, AFTER), {"func_src_after": AFTER}])
    with pytest.raises(UserError, match="cwe-089.jsonl, line 2: there is no text func_src_before"):
        sven_pairs(data, encode, 500)


@pytest.mark.data
def test_counts_of_the_real_files(data_dir):
    pairs, counts = sven_pairs(str(data_dir), encode, 1_000)  # 1,000 characters: a quick part
    assert counts["read"] == 380 and counts["equal"] == 0 and len(pairs) == 380 - counts["too_long"] > 150
    assert len({pair.task_id for pair in pairs}) == len(pairs)
    assert all(any(pair.better_mask) or any(pair.worse_mask) for pair in pairs)
    assert {pair.difficulty for pair in pairs} == {"cwe-022", "cwe-078", "cwe-079", "cwe-089"}
