"""Errors of a foreign architecture become a clear sentence; mistakes of this package end the run."""

import pytest
import torch
from tiny_models import tiny_backbone

from cptlab.backbone import exactness, model
from cptlab.backbone.exactness import check_exact
from cptlab.backbone.foreign_errors import raised_outside
from cptlab.errors import UserError


def caught(action):
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_raising_frame_decides():
    ours = {"__name__": "cptlab.backbone.attention_mask"}
    exec("def misspelt(): return lenght\ndef calls(f): return f()\ndef refuses(): raise ValueError('no')", ours)
    theirs = {"__name__": "transformers.models.odd"}
    exec("def fails(): return None.size\ndef calls(f): return f()", theirs)
    assert raised_outside(caught(theirs["fails"]))
    assert raised_outside(caught(lambda: ours["calls"](theirs["fails"])))
    assert not raised_outside(caught(ours["misspelt"]))
    assert not raised_outside(caught(lambda: theirs["calls"](ours["misspelt"])))
    assert not raised_outside(caught(ours["refuses"]))


def test_torch_raises_for_shapes_in_our_frame():
    ours = {"__name__": "cptlab.backbone.attention_mask", "torch": torch}
    exec("def join(): return torch.cat([torch.zeros(1, 2), torch.zeros(1, 2, 3)])", ours)
    exec("def memory(): raise torch.OutOfMemoryError", ours)
    assert raised_outside(caught(ours["join"]))
    assert not raised_outside(caught(ours["memory"]))


def test_an_architecture_that_raises_is_named():
    backbone = tiny_backbone("llama_gqa")

    def refuse(*args, **kwargs):
        raise TypeError("no cache here")

    backbone.model.forward = refuse
    with pytest.raises(UserError, match="cannot run with a prefix .TypeError: no cache here"):
        check_exact(backbone)


@pytest.mark.parametrize("mistake", [NameError, AttributeError, TypeError, KeyError])
@pytest.mark.parametrize("place", ["additive_mask", "token_positions", "PrefixLayer"])
def test_a_mistake_of_ours_ends_the_check(monkeypatch, mistake, place):
    broken = {"__name__": exactness.__name__, "mistake": mistake}
    exec("def broken(*args): raise mistake('misspelt')", broken)
    monkeypatch.setattr(model, place, broken["broken"])
    with pytest.raises(mistake, match="misspelt"):
        check_exact(tiny_backbone("llama_gqa"))
