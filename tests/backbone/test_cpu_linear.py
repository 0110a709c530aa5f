"""Large weights are multiplied by oneDNN and small batches the other way round, with the same result, only within a
backbone's own passes."""

import copy

import peft
import pytest
import torch
from tiny_models import tiny_backbone, tiny_model, tiny_tokenizer
from torch import nn

from cptlab.backbone import Backbone, cpu_linear, load_backbone
from cptlab.backbone.cpu_linear import MAX_ROWS, CpuLinear, CpuLinearSwitch, use_cpu_linear


@pytest.fixture
def products(monkeypatch):
    """Record how many columns each product written the other way round has."""
    product, used = torch.mm, []
    monkeypatch.setattr(cpu_linear.torch, "mm", lambda *args: (used.append(args[1].shape[1]), product(*args))[1])
    return used


@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2", "phi"])
def test_small_batches_give_the_plain_products_result(arch, products):
    backbone = tiny_backbone(arch)
    for rows in (1, 2, 5, 40):
        ids = torch.randint(0, 250, (rows, 1), generator=torch.Generator().manual_seed(rows))
        products.clear()
        logits, state = backbone.prefill(ids, torch.ones_like(ids))
        again = backbone.step(ids[:, 0], state)
        assert bool(products) == (rows <= MAX_ROWS) and set(products) <= {max(2, rows)}
        products.clear()
        whole = torch.cat([ids, ids], dim=1)
        with torch.no_grad():
            plain = backbone.model(whole).logits
        assert not products
        torch.testing.assert_close(torch.stack([logits, again], dim=1), plain, rtol=1e-4, atol=1e-5)
    assert (
        backbone.logits(ids[:2], torch.ones_like(ids[:2])).shape and not products
    )  # with gradients, the plain product


@pytest.fixture
def onednn(monkeypatch):
    """Take every weight for a large one, and record the rows of each product of oneDNN."""
    product, used = cpu_linear._onednn, []
    assert product is not None
    monkeypatch.setattr(cpu_linear, "LARGE", 0)
    monkeypatch.setattr(cpu_linear, "_onednn", lambda *args: (used.append(len(args[0])), product(*args))[1])
    return used


@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2", "phi"])
@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_large_weights_give_the_plain_products_result(arch, rows, onednn, products):
    """For prompts and for steps, with and without a bias, and not for a pass that has gradients."""
    backbone = tiny_backbone(arch)
    ids = torch.randint(0, 250, (rows, 7), generator=torch.Generator().manual_seed(rows))
    logits, state = backbone.prefill(ids[:, :-1], torch.ones_like(ids[:, :-1]))
    assert rows in onednn and set(onednn) <= {6 * rows, rows}  # the head reads the last tokens alone
    onednn.clear()
    again = backbone.step(ids[:, -1], state)
    assert set(onednn) == {rows} and not products
    onednn.clear()
    with torch.no_grad():
        plain = backbone.model(ids).logits[:, -2:]
    backbone.logits(ids, torch.ones_like(ids))
    assert not onednn
    torch.testing.assert_close(torch.stack([logits, again], dim=1), plain, rtol=1e-4, atol=1e-5)


def test_large_weights_are_exact_in_float32(onednn):
    """No product is rounded more coarsely: both ways are as near to that in float64."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(300, 200)
    switch = CpuLinearSwitch()
    layer, rows = CpuLinear(linear, switch), torch.randn(3, 17, 300, generator=generator)
    exact = linear.double()(rows.double())
    linear.float()
    with torch.no_grad(), switch.set_for(51, torch.device("cpu")):
        ours = layer(rows)
    assert onednn == [51] and ours.shape == exact.shape
    assert (ours - exact).abs().max() <= 2 * (linear(rows) - exact).abs().max()


@pytest.mark.parametrize("why", ["autocast", "no oneDNN", "half"])
def test_large_weights_are_multiplied_plainly_where_they_must(why, onednn, monkeypatch):
    linear, switch = nn.Linear(8, 6), CpuLinearSwitch()
    rows = torch.randn(5, 8)
    if why == "half":
        linear, rows = linear.bfloat16(), rows.bfloat16()
    if why == "no oneDNN":
        monkeypatch.setattr(cpu_linear, "_onednn", None)
    layer = CpuLinear(linear, switch)
    with torch.no_grad(), switch.set_for(5, torch.device("cpu")), torch.autocast("cpu", enabled=why == "autocast"):
        assert torch.equal(layer(rows), linear(rows)) and not onednn


def test_no_weight_of_the_embedded_model_is_large():
    """Its programs stay the same bit for bit."""
    assert max(p.numel() for p in load_backbone("kata-lm").model.parameters()) <= cpu_linear.LARGE


def test_the_head_of_a_long_prompt_is_plain(products):
    """It sees one row per prompt, but belongs to a pass of many tokens."""
    backbone = tiny_backbone("llama_gqa")
    ids = torch.arange(2 * MAX_ROWS)[None]
    backbone.prefill(ids, torch.ones_like(ids))
    assert not products


@pytest.mark.parametrize("copied", [False, True])
def test_backbones_do_not_switch_each_other(copied, products):
    """A model that runs by itself within another backbone's pass multiplies plainly, a copy with the same weights too."""
    first, second = tiny_backbone("llama_gqa"), tiny_backbone("llama_gqa")
    if copied:
        parameters = {id(parameter): parameter for parameter in first.model.parameters()}
        second = Backbone(copy.deepcopy(first.model, parameters), tiny_tokenizer(), "copy")
        assert second.model.lm_head.weight is first.model.lm_head.weight
    ids, inner = torch.tensor([[1, 2]]), []

    def run_inside(other):
        def hook(module, args, output):
            before = len(products)
            other.model(ids)
            inner.append(len(products) - before)

        return hook

    for one, other in ((first, second), (second, first)):
        with one.model.lm_head.register_forward_hook(run_inside(other)):
            one.prefill(ids, torch.ones_like(ids))
    assert products and inner == [0, 0]


def test_a_switch_is_turned_back_after_an_error():
    switch = CpuLinearSwitch()
    with torch.no_grad(), pytest.raises(KeyError), switch.set_for(1, torch.device("cpu")):
        assert switch.tokens == 1
        raise KeyError
    assert switch.tokens == 0


def test_layers_share_their_weights_and_stay_linear():
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(7, 5), "head": nn.Linear(5, 7, bias=False), "other": nn.Linear(5, 5)}
    )
    model["head"].weight = model["embedding"].weight
    model["again"] = model["other"]
    before = dict(model.named_parameters(remove_duplicate=False))
    use_cpu_linear(model)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert before.keys() == after.keys() and all(after[name] is before[name] for name in before)
    assert isinstance(model["head"], CpuLinear) and isinstance(model["head"], nn.Linear)
    assert model["again"] is model["other"] and isinstance(model["other"], CpuLinear)


def test_lora_layers_wrap_them(products):
    backbone = tiny_backbone("llama_gqa")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    backbone.model = peft.inject_adapter_in_model(config, backbone.model)
    ids = torch.tensor([[1, 2, 3]])
    logits, _ = backbone.prefill(ids, torch.ones_like(ids))
    assert products
    products.clear()
    with torch.no_grad():
        torch.testing.assert_close(logits, backbone.model(ids).logits[:, -1], rtol=1e-4, atol=1e-5)
    assert not products


def test_a_model_is_the_same_after_the_replacement():
    model = tiny_model("phi")
    model.eval()
    ids = torch.arange(50)[None]
    with torch.no_grad():
        before = model(ids).logits
        names = list(model.state_dict())
        use_cpu_linear(model)
        assert list(model.state_dict()) == names and torch.equal(model(ids).logits, before)
