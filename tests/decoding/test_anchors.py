"""Inline anchor tags: where they stand in the text without them, and what is wrong with wrong ones."""

import pytest
from tiny_models import tiny_backbone, tiny_tokenizer

from cptlab.decoding.anchors import anchored_prompt, mask_spans, parse_anchors
from cptlab.decoding.negatives.masked import Masked, masked_ids
from cptlab.errors import UserError
from cptlab.records import Span


@pytest.mark.parametrize(
    ("text", "plain", "parts"),
    [
        ("sum of <anchor>sum</anchor>\n", "sum of sum\n", ["sum"]),
        ("<anchor>a</anchor><anchor>b c</anchor>", "ab c", ["a", "b c"]),
        ("é <anchor>ü\nñ</anchor> é", "é ü\nñ é", ["ü\nñ"]),
        ("<anchor></anchor>x", "x", []),
        ("a < b, c > d, <anchors>", "a < b, c > d, <anchors>", []),
        ("", "", []),
    ],
)
def test_tags_become_spans(text, plain, parts):
    found, spans = parse_anchors(text)
    assert found == plain
    assert [found[span.start : span.end] for span in spans] == parts
    assert {span.name for span in spans} <= {"anchor"}


def test_only_the_tagged_occurrence():
    assert parse_anchors("sum <anchor>sum</anchor> sum")[1] == (Span("anchor", 4, 7),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb <anchor>c <anchor>d</anchor></anchor>", r"<anchor> in line 2, column 13 opens an anchor inside another"),
        ("a <anchor>b", r"<anchor> in line 1, column 3 is never closed"),
        ("a</anchor> b", r"</anchor> in line 1, column 2 closes no anchor"),
        ("<anchor>a</anchor></anchor>", r"</anchor> in line 1, column 19 closes no anchor"),
    ],
)
def test_wrong_tags_are_explained(text, message):
    with pytest.raises(UserError, match=message):
        parse_anchors(text)


def test_a_prompt_for_the_engine():
    prompt = anchored_prompt(
        "# <anchor>Add</anchor> them\ndef <anchor>add</anchor>(a):\n", "def <anchor>add</anchor>(a):\n"
    )
    assert (prompt.text, prompt.code) == ("# Add them\ndef add(a):\n", "def add(a):\n")
    backbone = tiny_backbone("llama")
    masked = masked_ids(backbone, prompt, Masked("anchor").spans)
    assert backbone.decode(masked) == "#  them\ndef (a):\n"
    assert len(masked) == len(backbone.encode_prompt(prompt.text))
    with pytest.raises(UserError, match="does not end with the code"):
        anchored_prompt("<anchor>a</anchor> b", "c")


def test_masking_needs_a_fast_tokenizer_and_a_mask_token():
    tokenizer = tiny_tokenizer()
    text, spans = parse_anchors("a <anchor>é</anchor> b")
    ids, masked = mask_spans(tokenizer, text, spans, 258)
    assert ids == tokenizer(text).input_ids and masked == ids[:2] + [258, 258] + ids[4:]
    assert mask_spans(tokenizer, text, (), None) == (ids, ids)
    with pytest.raises(UserError, match="no token to mask with"):
        mask_spans(tokenizer, text, spans, None)

    class Slow:
        name_or_path, is_fast = "slow", False

    with pytest.raises(UserError, match="The tokenizer slow cannot locate tokens"):
        mask_spans(Slow(), text, spans, 258)
