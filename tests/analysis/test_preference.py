"""Judged without generation: likelihoods against the model itself, messages against a program's own, figures against loops."""

import json
from statistics import fmean

import pytest
import torch
from tiny_models import random_prefix, tiny_backbone

from cptlab.adapters import Policy
from cptlab.analysis.preference.likelihoods import likelihoods
from cptlab.analysis.preference.messages import PairMessages, pair_messages
from cptlab.analysis.preference.summary import metrics, summarize, table
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.pairs import token_masks
from cptlab.records import Pair
from cptlab.reporting.layout import to_csv, to_text
from cptlab.training.steps.token_pairs import encode_pair

CODE = "def f(x):"
PROGRAMS = [
    ("\n    return x\n", "\n    n = 0\n    return x\n"),
    ("\n    y = x\n    return y\n", "\n    y = x\n    if y:\n        return y\n"),
    ("\n    return [x]\n", "\n    n = 0\n    if (x > 1):\n        return [x]\n    return [x]\n"),
]


def made(backbone, better, worse, instruction, number=0) -> Pair:
    ids = [list(backbone.encode_completion(text)) for text in (better, worse)]
    masks = token_masks(*ids)
    return Pair(f"t/{number}", "easy", "validation", instruction, better, worse, *masks, 9.0, 5.0, 0.9, 0.8, True)


def pairs(backbone) -> list[Pair]:
    return [made(backbone, *both, f'"""Do it."""\n{CODE}', i) for i, both in enumerate(PROGRAMS)]


@pytest.mark.parametrize("architecture", ["llama_gqa", "gpt2"])
def test_likelihoods_are_those_of_each_program_alone(architecture):
    backbone = tiny_backbone(architecture)
    prefix = random_prefix(backbone)
    encoded = [encode_pair(pair, backbone, append_eos=True) for pair in pairs(backbone)]
    found = likelihoods(
        backbone, {"base": Policy(backbone), "tuned": Policy(backbone, prefix)}, encoded, token_budget=200
    )
    for name, own in (("base", None), ("tuned", prefix)):
        for pair, both in zip(encoded, found[name], strict=True):
            for (ids, _), scores in zip((pair.better, pair.worse), both, strict=True):
                row = torch.tensor([pair.instruction + ids])
                with torch.no_grad():
                    expected = backbone.logits(row, torch.ones_like(row), own).log_softmax(-1)[0]
                wanted = [expected[len(pair.instruction) - 1 + i, token].item() for i, token in enumerate(ids)]
                assert scores == pytest.approx(wanted, abs=1e-4)


def test_messages_are_found_on_their_tokens():
    backbone = tiny_backbone("llama")
    some = pairs(backbone)
    whole = made(backbone, "x = 1\n", "x = 1\nif (x > 0):\n    x = 2\n", "Write a program, please.\n```python\n", 9)

    def score(programs):
        return score_programs(programs, workers=1)

    found = pair_messages([*some, whole], backbone.encode_completion, backbone.decode, score)
    assert [sorted(one.more) for one in found] == [["W0612"], ["R1710"], ["C0325", "W0612"], ["C0325"]]
    for pair, one, lines in zip([*some, whole], found, ({"W0612": "n = 0"}, {"R1710": ""}, {"W0612": "n = 0", "C0325": "if (x > 1):"}, {"C0325": "if (x > 0):"}), strict=True):  # fmt: skip
        ids = list(backbone.encode_completion(pair.worse))
        for message, text in lines.items():
            assert backbone.decode([ids[place] for place in one.tokens[message]]).strip() == text
    assert found[2].tokens["all"] == sorted(found[2].tokens["W0612"] + found[2].tokens["C0325"])


def test_figures_are_those_of_plain_loops():
    read = [([-1.0, -3.0], [-2.0, -4.0, -6.0]), ([-5.0], [-1.0, -1.0]), ([-2.0], [-4.0])]
    messages = [
        PairMessages(frozenset({"W0612"}), {"W0612": [0, 2], "all": [0, 2]}),
        PairMessages(frozenset({"W0612", "R1705"}), {"W0612": [1], "R1705": [], "all": [1]}),
        PairMessages(frozenset(), {"all": []}),
    ]
    found = summarize(read, messages)
    assert list(found) == ["all", "R1705", "W0612"]
    assert found["all"]["pairs"] == 3 and found["W0612"]["pairs"] == 2 and found["R1705"]["pairs"] == 1
    assert found["all"]["accuracy"] == pytest.approx(2 / 3) and found["W0612"]["accuracy"] == 0.5
    assert found["all"]["margin"] == pytest.approx(fmean([2.0, -4.0, 2.0]))
    assert found["all"]["propensity"] == pytest.approx((-2 - 6 - 1) / 3)
    assert found["R1705"]["propensity"] is None and found["R1705"]["tokens"] == 0
    low, high = found["all"]["margin_ci"]
    assert low <= found["all"]["margin"] <= high
    assert metrics(found, "tuned") == {
        "tuned/accuracy": pytest.approx(2 / 3),
        "tuned/margin": pytest.approx(0.0),
        "tuned/propensity": pytest.approx(-3.0),
    }
    made = table({"base": found, "tuned": found}, "three pairs")
    assert [row[0] for row in made.rows] == ["all", "W0612", "R1705"] and "–" in made.rows[2]
    assert "R1705" in to_text(made) and to_csv(made).count("\n") == 7 and json.dumps(found)
