"""Where a prefix starts and which of its numbers are trained: another prefix, a text's keys and values, some layers."""

import pytest
import torch
from tiny_models import tiny_backbone

from cptlab.adapters import Prefix, load_prefix, save_prefix
from cptlab.errors import UserError

TEXT = "Write clean code, please."


@pytest.mark.parametrize("architecture", ["llama_gqa", "gpt2", "codegen"])
@pytest.mark.parametrize("rank", [None, 8])
def test_a_prefix_of_a_text_stands_for_the_text(architecture, rank):
    backbone = tiny_backbone(architecture)
    text, prompt = backbone.encode_prompt(TEXT)[:6], backbone.encode_prompt("def f(x):")
    prefix = Prefix(backbone, length=6, rank=rank, start_text=TEXT)
    both, alone = torch.tensor([text + prompt]), torch.tensor([prompt])
    expected = backbone.logits(both, torch.ones_like(both))[:, len(text) :]
    assert torch.allclose(backbone.logits(alone, torch.ones_like(alone), prefix), expected, atol=1e-5)
    assert prefix.note and "6" in prefix.note and repr(TEXT[:6]) in prefix.note


def trained(prefix: Prefix) -> torch.Tensor:
    """The table after steps that pull every number the same way, by the way a training step takes."""
    optimizer = torch.optim.AdamW(prefix.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        (table,) = prefix.tensors()
        optimizer.zero_grad()
        table.sum().backward()
        optimizer.step()
    return prefix.collapsed().detach()


@pytest.mark.parametrize("rank", [None, 4])
def test_the_sink_and_the_other_layers_stay_as_they_began(rank, tmp_path):
    backbone = tiny_backbone("llama_gqa")
    prefix = Prefix(backbone, length=4, rank=rank, start_text=TEXT, layers=[1])
    before, table = prefix.collapsed().detach().clone(), trained(prefix)
    half = backbone.shape.width // 2  # of two layers
    assert torch.equal(table[0], before[0]) and torch.equal(table[:, :half], before[:, :half])
    assert (table[1:, half:] != before[1:, half:]).all()
    save_prefix(prefix, tmp_path, backbone)
    assert torch.equal(load_prefix(tmp_path, backbone.shape).collapsed(), table), (
        "PEFT's format holds what is kept, too"
    )


@pytest.mark.parametrize("rank", [None, 7])
def test_a_prefix_starts_from_another(rank, tmp_path):
    backbone = tiny_backbone("phi")
    other = Prefix(backbone, length=5, seed=3)
    save_prefix(other, tmp_path / "run" / "prefix", backbone)
    for given in ("run", "run/prefix"):
        prefix = Prefix(backbone, length=5, rank=rank, start=str(tmp_path / given))
        assert torch.allclose(prefix.collapsed(), other.collapsed(), atol=1e-6)
        assert prefix.kept is None and (trained(prefix) != other.collapsed()).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": "RUN", "start_text": TEXT}, "two starts"),
        ({"start": "RUN", "length": 9}, "has 5 positions, and adapter.length=9"),
        ({"start": "RUN", "length": 5, "rank": 4}, "adapter.rank=4 is too small"),
        ({"start": "nowhere"}, "There is no adapter_config.json"),
        ({"start_text": "no"}, "adapter.start_text has 2 tokens, fewer than adapter.length=12"),
        ({"start_text": TEXT, "length": 1}, "at least 2"),
        ({"layers": [2]}, "layers from 0 to 1"),
        ({"layers": []}, "adapter.layers="),
        ({"layers": [1, 1]}, "each once"),
    ],
)
def test_a_start_that_cannot_be_is_refused(settings, said, tmp_path):
    backbone = tiny_backbone("llama")
    save_prefix(Prefix(backbone, length=5), tmp_path / "prefix", backbone)
    settings = {name: str(tmp_path) if value == "RUN" else value for name, value in settings.items()}
    with pytest.raises(UserError, match=said):
        Prefix(backbone, **settings)


def test_a_prefix_of_another_backbone_is_refused(tmp_path):
    save_prefix(Prefix(tiny_backbone("llama"), length=12), tmp_path, "another")
    with pytest.raises(UserError, match="belongs to another backbone"):
        Prefix(tiny_backbone("llama_gqa"), start=str(tmp_path))
