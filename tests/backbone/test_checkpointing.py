"""Gradient checkpointing behind a prefix: the same gradients, less memory, and nothing left behind."""

from contextlib import nullcontext

import pytest
import torch
from tiny_models import ARCHITECTURES, SLIDING, double, pad, random_prefix, tiny_backbone, tokens
from torch import nn

from cptlab.backbone.gradient_checkpointing import checkpointed, decoder_layers
from cptlab.errors import UserError

CASES = [(arch, {}) for arch in ARCHITECTURES] + list(SLIDING.items())
every_case = pytest.mark.parametrize(("arch", "overrides"), CASES, ids=[a + "-window" * bool(o) for a, o in CASES])


def deep(arch, overrides, layers=4):
    """A tiny backbone in float64 with more layers, so that one of them is little."""
    config = ARCHITECTURES[arch][1] | overrides
    if "layer_types" in config:
        overrides = overrides | {"layer_types": config["layer_types"] * (layers // 2)}
    return double(arch, **(overrides | {"n_layer" if "n_layer" in config else "num_hidden_layers": layers}))


def loss_of(backbone, prefix):
    ids, mask = pad(tokens(30, 17), "right")
    return backbone.logits(ids, mask, prefix).log_softmax(-1)[..., 3][mask.bool()].sum()


def gradient(backbone, prefix, within, after=False):
    """The prefix's gradient, and the bytes that autograd keeps for it, weights aside."""
    prefix.zero_grad()
    kept = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in backbone.model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # so it stays alive, and its address its own

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with within(backbone.model):
            loss = loss_of(backbone, prefix)
            if not after:
                loss.backward()
        if after:
            loss.backward()
    return prefix.table.grad.clone(), sum(kept.values())


def plainly(_model):
    return nullcontext()


@every_case
def test_the_gradient_is_the_same_and_the_memory_falls(arch, overrides):
    backbone = deep(arch, overrides)
    prefix = random_prefix(backbone).double()
    expected, whole = gradient(backbone, prefix, plainly)
    for after in (False, True):  # the backward pass may come when the context is left
        actual, kept = gradient(backbone, prefix, checkpointed, after)
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)
        assert kept < whole / 2.5
    assert (expected != 0).all()  # every layer's keys and values count: transformers would have dropped them


@pytest.mark.parametrize("arch", ["llama_gqa", "codegen", "qwen2_moe"])
def test_memory_grows_with_layers_only_by_their_inputs(arch):
    kept = {}
    for layers in (4, 8):
        backbone = deep(arch, {}, layers)
        for within in (plainly, checkpointed):
            kept[layers, within] = gradient(backbone, random_prefix(backbone).double(), within)[1]
    inputs = 2 * 30 * backbone.hidden_size * 8  # bytes of one layer's input
    assert kept[8, checkpointed] - kept[4, checkpointed] == 4 * inputs
    assert kept[8, plainly] - kept[4, plainly] > 4 * 5 * inputs


@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2", "mixtral"])
def test_each_layer_runs_twice_and_without_gradients_once(arch):
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone)
    runs = []
    block = type(decoder_layers(backbone.model)[0])
    forward = block.forward
    try:
        block.forward = lambda self, *args, **kwargs: (runs.append(self), forward(self, *args, **kwargs))[1]
        with checkpointed(backbone.model):
            loss = loss_of(backbone, prefix)
            assert len(runs) == 2
            loss.backward()
            assert len(runs) == 4
            with torch.no_grad():
                silent = loss_of(backbone, prefix)
        assert len(runs) == 6 and torch.equal(silent, loss)
    finally:
        block.forward = forward


def test_nested_contexts_and_errors_leave_no_trace():
    backbone = tiny_backbone("llama_gqa")
    layers = decoder_layers(backbone.model)
    layers[1].forward = own = layers[1].forward  # as accelerate gives a layer a forward of its own
    before = [dict(layer.__dict__) for layer in layers]
    prefix = random_prefix(backbone)
    expected = torch.autograd.grad(loss_of(backbone, prefix), prefix.table)[0]
    runs = []
    layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    with checkpointed(backbone.model), pytest.raises(RuntimeError, match="inside"):
        with checkpointed(backbone.model):
            torch.testing.assert_close(torch.autograd.grad(loss_of(backbone, prefix), prefix.table)[0], expected)
            assert len(runs) == 2  # not four times
            raise RuntimeError("inside")
    assert [dict(layer.__dict__) for layer in layers] == before and layers[1].__dict__["forward"] is own
    with pytest.raises(RuntimeError, match="outside"), checkpointed(backbone.model):
        with checkpointed(backbone.model):
            pass
        runs.clear()
        loss_of(backbone, prefix).backward()
        assert len(runs) == 2  # the inner context took nothing away
        raise RuntimeError("outside")
    assert [dict(layer.__dict__) for layer in layers] == before


def test_a_batch_under_autocast_is_recomputed_under_autocast():
    backbone = tiny_backbone("llama_gqa")
    prefix = random_prefix(backbone)
    gradients = []
    for within in (plainly, checkpointed):
        with within(backbone.model):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(backbone, prefix)
            gradients.append(torch.autograd.grad(loss, prefix.table)[0])
    assert torch.equal(*gradients) and gradients[0].abs().sum() > 0


def test_both_factors_of_a_prefix_get_their_gradient():
    backbone = double("qwen2")
    prefix = random_prefix(backbone, rank=3).double()
    expected = torch.autograd.grad(loss_of(backbone, prefix), list(prefix.parameters()))
    with checkpointed(backbone.model):
        actual = torch.autograd.grad(loss_of(backbone, prefix), list(prefix.parameters()))
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)


def test_rows_that_branch_are_recomputed_as_they_were():
    """The packed layout: two branches behind a shared beginning, in one row, with their own mask and positions."""
    backbone = double("mistral", sliding_window=8)
    prefix = random_prefix(backbone).double()
    (row,) = tokens(24)
    positions = torch.tensor([[*range(12), *range(12, 18), *range(12, 18)]])
    segments = torch.tensor([[0] * 12 + [1] * 6 + [2] * 6])
    gradients = []
    for within in (plainly, checkpointed):
        with within(backbone.model):
            states = backbone.hidden_states(row[None], positions, segments, prefix)
            gradients.append(torch.autograd.grad(states.sin().sum(), prefix.table)[0])
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)
    assert (gradients[0] != 0).any()


def test_the_outermost_list_of_layers_is_taken_and_a_model_without_one_is_refused():
    backbone = tiny_backbone("llama_gqa")
    assert decoder_layers(backbone.model) is backbone.model.model.layers
    backbone.model.model.layers[0].experts = nn.ModuleList([nn.Identity(), nn.Identity()])  # as many as layers
    assert decoder_layers(backbone.model) is backbone.model.model.layers
    backbone.model.config.num_hidden_layers = 3
    with (
        pytest.raises(UserError, match="no list of 3 layers.*compute.checkpointing=false"),
        checkpointed(backbone.model),
    ):
        pass
