"""The prefix on tiny random models of every architecture, against plain recomputation and padding-free rows."""

import pytest
import torch
from tiny_models import ARCHITECTURES, CLOSE, SLIDING, M, alone, pad, random_prefix, tiny_backbone, tokens

from cptlab.adapters import Prefix
from cptlab.backbone.exactness import check_exact
from cptlab.backbone.prefix_shape import TESTED

CASES = [(arch, {}) for arch in ARCHITECTURES] + list(SLIDING.items())
every_case = pytest.mark.parametrize(("arch", "overrides"), CASES, ids=[a + "-window" * bool(o) for a, o in CASES])


def test_every_tested_type_is_here():
    assert {model_type for model_type, _ in ARCHITECTURES.values()} == TESTED


@every_case
@torch.no_grad()
def test_without_prefix_it_is_the_plain_model(arch, overrides):
    backbone = tiny_backbone(arch, **overrides)
    (row,) = tokens(24)
    expected = backbone.model(input_ids=row[None]).logits[0]
    torch.testing.assert_close(alone(backbone, row, None), expected, **CLOSE)


@every_case
def test_gradient_reaches_only_the_prefix_and_every_number_of_it(arch, overrides):
    backbone = tiny_backbone(arch, **overrides)
    prefix = random_prefix(backbone)
    (row,) = tokens(24)
    logits = alone(backbone, row, prefix)
    assert (logits - alone(backbone, row, None)).abs().max() > 0.1
    logits.log_softmax(-1)[torch.arange(23), row[1:]].sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())
    assert not backbone.model.training
    assert (prefix.table.grad != 0).all()


@every_case
@pytest.mark.parametrize("with_prefix", [False, True])
@torch.no_grad()
def test_padding_on_either_side_changes_no_row(arch, overrides, with_prefix):
    backbone = tiny_backbone(arch, **overrides)
    prefix = random_prefix(backbone) if with_prefix else None
    rows = tokens(7, 24, 13)
    expected = [alone(backbone, row, prefix) for row in rows]
    for side in ("left", "right"):
        ids, mask = pad(rows, side)
        logits = backbone.logits(ids, mask, prefix)
        for i, row in enumerate(rows):
            torch.testing.assert_close(logits[i][mask[i].bool()], expected[i], **CLOSE)
            assert len(expected[i]) == len(row)
        assert logits.isfinite().all()


@every_case
@pytest.mark.parametrize("with_prefix", [False, True])
@torch.no_grad()
def test_decoding_step_by_step_equals_one_pass(arch, overrides, with_prefix):
    backbone = tiny_backbone(arch, **overrides)
    prefix = random_prefix(backbone) if with_prefix else None
    prompts, continuations = tokens(5, 12), tokens(20, 20, seed=1)
    expected = [alone(backbone, torch.cat([p, c]), prefix) for p, c in zip(prompts, continuations, strict=True)]
    logits, state = backbone.prefill(*pad(prompts, "left"), prefix)
    state.repeat(2)
    state.select(torch.tensor([3, 0, 1]))  # rows are now prompts 1, 0, 0
    logits, origin = logits[[1, 0, 0]], [1, 0, 0]
    for t in range(20):
        for row, i in enumerate(origin):
            torch.testing.assert_close(logits[row], expected[i][len(prompts[i]) - 1 + t], **CLOSE)
        if t == 10:  # a row ends early
            state.select(torch.tensor([0, 2]))
            origin = [1, 0]
        logits = backbone.step(torch.stack([continuations[i][t] for i in origin]), state)


@torch.no_grad()
def test_a_long_decoding_outgrows_its_buffers():
    backbone = tiny_backbone("llama_gqa")
    prefix = random_prefix(backbone)
    (row,) = tokens(200)
    expected = alone(backbone, row, prefix)
    logits, state = backbone.prefill(row[None, :10], torch.ones(1, 10, dtype=torch.long), prefix)
    for t in range(10, 200):
        torch.testing.assert_close(logits[0], expected[t - 1], **CLOSE)
        logits = backbone.step(row[t : t + 1], state)


@pytest.mark.parametrize("arch", SLIDING)
@torch.no_grad()
def test_far_tokens_see_the_prefix_but_not_far_tokens(arch):
    """In one sliding layer the last of 40 tokens sees the prefix and its own window of 8, nothing between."""
    one_layer = {"num_hidden_layers": 1} | (
        {"layer_types": ["sliding_attention"]} if "layer_types" in SLIDING[arch] else {}
    )
    backbone = tiny_backbone(arch, **(SLIDING[arch] | one_layer))
    one, other = random_prefix(backbone), random_prefix(backbone, seed=2)
    (row,) = tokens(40)
    far, near = row.clone(), row.clone()
    far[5:32] = 3
    near[33] = 3
    last = alone(backbone, row, one)[-1]
    assert (alone(backbone, row, other)[-1] - last).abs().max() > 0.05
    torch.testing.assert_close(alone(backbone, far, one)[-1], last, **CLOSE)
    assert (alone(backbone, near, one)[-1] - last).abs().max() > 1e-3


@torch.no_grad()
def test_sliding_attention_is_that_of_plain_loops():
    """One Mistral layer's attention, recomputed in float64 with a loop over queries and keys."""
    backbone = tiny_backbone("mistral", num_hidden_layers=1, sliding_window=8)
    model, prefix = backbone.model, random_prefix(backbone)
    (row,) = tokens(30)
    seen = {}
    attention = model.model.layers[0].self_attn
    handle = attention.o_proj.register_forward_pre_hook(lambda _, args: seen.update(out=args[0]))
    alone(backbone, row, prefix)
    handle.remove()

    hidden = model.model.layers[0].input_layernorm(model.model.embed_tokens(row))
    query, key, value = (
        proj(hidden).double().view(30, -1, 8) for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    angle = (M + torch.arange(30))[:, None] / 10_000 ** (torch.arange(0, 8, 2) / 8)  # real tokens start at M
    cos, sin = (torch.cat([f(angle.double())] * 2, dim=-1)[:, None] for f in (torch.cos, torch.sin))

    def rotate(x):
        return x * cos + torch.cat([-x[..., 4:], x[..., :4]], dim=-1) * sin

    query, key = rotate(query), rotate(key)
    prefix_key, prefix_value = (t.double() for t in prefix.key_values()[0])
    for head in range(4):
        group = head // 2
        for t in range(30):
            window = range(max(0, t - 7), t + 1)
            keys = torch.stack([*prefix_key[group], *(key[s, group] for s in window)])
            values = torch.stack([*prefix_value[group], *(value[s, group] for s in window)])
            expected = torch.softmax(keys @ query[t, head] / 8**0.5, dim=0) @ values
            actual = seen["out"][0, t, head * 8 : head * 8 + 8].double()
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_factors_collapse_to_the_same_logits(arch):
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone, rank=3)
    (row,) = tokens(16)
    with torch.no_grad():
        assert torch.equal(alone(backbone, row, prefix), alone(backbone, row, prefix.collapse()))


def _train(backbone, prefix, optimizer, row, steps):
    for _ in range(steps):
        logits = alone(backbone, row, prefix)
        loss = -logits[:-1].log_softmax(-1)[torch.arange(len(row) - 1), row[1:]].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("rank", [None, 3])
def test_training_resumes_from_the_state_dict_bit_for_bit(arch, rank, tmp_path):
    backbone = tiny_backbone(arch)
    (row,) = tokens(16)
    prefix = Prefix(backbone.shape, length=M, rank=rank)
    optimizer = torch.optim.AdamW(prefix.parameters(), lr=1e-2)
    first = _train(backbone, prefix, optimizer, row, 1)
    _train(backbone, prefix, optimizer, row, 3)
    torch.save([prefix.state_dict(), optimizer.state_dict()], tmp_path / "checkpoint")
    last = _train(backbone, prefix, optimizer, row, 3)
    assert last < first

    resumed = Prefix(backbone.shape, length=M, rank=rank, seed=99)
    optimizer = torch.optim.AdamW(resumed.parameters(), lr=1e-2)
    weights, moments = torch.load(tmp_path / "checkpoint")
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    assert _train(backbone, resumed, optimizer, row, 3) == last
    assert torch.equal(resumed.collapsed(), prefix.collapsed())


@pytest.mark.parametrize("arch", ["llama_gqa", "mistral", "gpt2"])
@torch.no_grad()
def test_eager_and_sdpa_agree(arch):
    rows = tokens(7, 24)
    logits = []
    for implementation in ("eager", "sdpa"):
        backbone = tiny_backbone(arch)
        backbone.model.set_attn_implementation(implementation)
        logits.append(backbone.logits(*pad(rows, "left"), random_prefix(backbone))[1])
    torch.testing.assert_close(*logits, **CLOSE)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@torch.no_grad()
def test_bfloat16_is_close_and_finite(arch):
    backbone = tiny_backbone(arch)
    exact = backbone.logits(*pad(tokens(24), "left"), random_prefix(backbone))
    backbone.model.bfloat16()
    rough = backbone.logits(*pad(tokens(24), "left"), random_prefix(backbone)).float()
    error = (rough - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.median() < 0.05 and rough.isfinite().all()  # the median, because an expert's choice may flip


@pytest.mark.parametrize("arch", ["llama_gqa", "starcoder2", "qwen2"])
def test_autocast_runs_forward_and_backward(arch):
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = backbone.logits(*pad(tokens(7, 24), "right"), prefix).float().square().mean()
    loss.backward()
    assert prefix.table.grad.isfinite().all() and prefix.table.grad.abs().sum() > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_check_for_unknown_architectures_passes_known_ones(arch):
    check_exact(tiny_backbone(arch))
