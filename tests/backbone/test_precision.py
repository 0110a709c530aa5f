"""A prefix in float32 on a backbone in bfloat16: what is trained stays exact, what is frozen is half as large."""

import pytest
import torch
from tiny_models import M, pad, random_prefix, tiny_backbone, tokens

from cptlab.adapters import Prefix
from cptlab.backbone.gradient_checkpointing import checkpointed

ARCHS = ("llama_gqa", "phi", "starcoder2", "codegen", "gpt_bigcode", "qwen2", "gpt2", "gpt_neox")


def loss_of(backbone, prefix):
    """Mean negative log-probability of the next token, in float32."""
    ids, mask = pad(tokens(24, 17), "right")
    scores = backbone.logits(ids, mask, prefix)[:, :-1].float().log_softmax(-1)
    return -scores.gather(-1, ids[:, 1:, None])[..., 0][mask[:, 1:].bool()].mean()


def half(arch):
    backbone = tiny_backbone(arch)
    backbone.model.bfloat16()
    return backbone


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("rank", [None, 3])
def test_a_bfloat16_backbone_gives_nearly_the_gradient_of_a_float32_one(arch, rank):
    gradients = []
    for backbone in (tiny_backbone(arch), half(arch)):
        prefix = random_prefix(backbone, rank=rank)
        loss_of(backbone, prefix).backward()
        assert all(p.grad.dtype == torch.float32 for p in prefix.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in prefix.parameters()]))
    exact, rough = gradients
    assert torch.cosine_similarity(exact, rough, dim=0) > 0.99
    assert 0.9 < rough.norm() / exact.norm() < 1.1
    assert not torch.equal(exact, rough)  # the backbone really computed in bfloat16


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_float32_prefix_learns_on_a_bfloat16_backbone(arch, recompute):
    backbone = half(arch)
    weights = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    prefix = Prefix(backbone.shape, length=M)
    first = prefix.table.detach().clone()
    optimizer = torch.optim.AdamW(prefix.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        if recompute:
            with checkpointed(backbone.model):
                loss = loss_of(backbone, prefix)
        else:
            loss = loss_of(backbone, prefix)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02 and backbone.dtype == torch.bfloat16
    assert prefix.table.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in optimizer.state[prefix.table].values())
    assert all(torch.equal(weight, weights[name]) for name, weight in backbone.model.state_dict().items())
    # steps far below bfloat16's resolution add up
    assert ((prefix.table - prefix.table.bfloat16().float()) != 0).float().mean() > 0.9
    assert (prefix.table - first).abs().max() < 0.2


def test_a_step_below_bfloat16_resolution_is_not_lost():
    """At 1.0 bfloat16 knows steps of 1/128; the prefix in float32 keeps one of 1e-4, and eighty of them."""
    backbone = half("llama_gqa")
    prefix = Prefix(backbone.shape, length=M)
    with torch.no_grad():
        prefix.table.fill_(1.0)
    optimizer = torch.optim.SGD(prefix.parameters(), lr=1e-4)
    before = loss_of(backbone, prefix).item()
    for _ in range(80):
        prefix.table.grad = torch.ones_like(prefix.table)
        optimizer.step()
    torch.testing.assert_close(prefix.table.detach(), torch.full_like(prefix.table, 0.992), atol=1e-5, rtol=0)
    assert loss_of(backbone, prefix).item() != before
