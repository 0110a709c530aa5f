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


SHAPES = "torch.cat([torch.zeros(1, 2), torch.zeros(1, 2, 3)])"


def test_torchs_errors_are_of_who_called_it_with_these_tensors():
    ours = {"__name__": "cptlab.backbone.attention_mask", "torch": torch}
    exec(f"def join(): return {SHAPES}", ours)
    exec("def product(): return torch.nn.functional.linear(torch.zeros(2), torch.zeros(3, 3))", ours)
    exec("def layer(): return torch.nn.Linear(3, 3)(torch.zeros(2))", ours)  # the last frame is torch's
    exec("def memory(): raise torch.OutOfMemoryError", ours)
    theirs = {"__name__": "transformers.models.odd", "torch": torch}
    exec("def forward(f): return f()\ndef loads(f): return f()", theirs)
    exec(f"def join(): return {SHAPES}", theirs)
    exec("def layer(): return torch.nn.Linear(3, 3)(torch.zeros(2))", theirs)
    for name in ("join", "product", "layer"):
        assert not raised_outside(caught(ours[name]))
        assert not raised_outside(caught(lambda name=name: theirs["loads"](ours[name])))
        assert raised_outside(caught(lambda name=name: theirs["forward"](ours[name])))
    assert raised_outside(caught(theirs["join"])) and raised_outside(caught(theirs["layer"]))
    assert not raised_outside(caught(ours["memory"]))
    assert not raised_outside(caught(lambda: theirs["forward"](ours["memory"])))


def test_a_forward_that_takes_other_arguments_and_a_backward_that_fails_are_foreign():
    ours = {"__name__": "cptlab.backbone.model", "torch": torch}
    exec("def run(module): return module(position_ids=1)", ours)
    exec("def back(number): return torch.autograd.grad(number.sum(), [number])", ours)
    assert raised_outside(caught(lambda: ours["run"](torch.nn.Identity())))
    assert raised_outside(caught(lambda: ours["back"](torch.zeros(2))))


@pytest.mark.parametrize("error", [TypeError, RuntimeError, IndexError])
def test_an_architecture_that_raises_is_named(error):
    backbone = tiny_backbone("llama_gqa")

    def refuse(*args, **kwargs):
        raise error("no cache here")

    backbone.model.forward = refuse
    with pytest.raises(UserError, match=f"cannot run with a prefix .{error.__name__}: no cache here"):
        check_exact(backbone)


def test_an_architecture_whose_keys_do_not_fit_the_prefix_is_named():
    """The cache is ours and joins them, but the model's forward pass gave it the keys."""
    backbone = tiny_backbone("llama_gqa")
    for layer in backbone.model.model.layers:
        layer.self_attn.k_proj = torch.nn.Linear(32, 8)  # one head
    with pytest.raises(UserError, match="cannot run with a prefix .RuntimeError: Sizes of tensors must match"):
        check_exact(backbone)


@pytest.mark.parametrize("mistake", [NameError, AttributeError, TypeError, KeyError, RuntimeError, IndexError])
@pytest.mark.parametrize("place", ["additive_mask", "token_positions", "PrefixLayer"])
def test_a_mistake_of_ours_ends_the_check(monkeypatch, mistake, place):
    broken = {"__name__": exactness.__name__, "mistake": mistake}
    exec("def broken(*args): raise mistake('misspelt')", broken)
    monkeypatch.setattr(model, place, broken["broken"])
    with pytest.raises(mistake, match="misspelt"):
        check_exact(tiny_backbone("llama_gqa"))
