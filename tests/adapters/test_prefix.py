"""The prefix as a module: sizes, column order, factors."""

import pytest
import torch
from transformers import AutoConfig

from cptlab.adapters import Prefix
from cptlab.backbone import PrefixShape, prefix_shape
from cptlab.errors import UserError

SHAPE = PrefixShape(num_layers=3, num_kv_heads=2, head_dim=4)


def test_code_llama_7b_has_the_papers_number_of_parameters():
    config = AutoConfig.for_model("llama", hidden_size=4096, num_hidden_layers=32, num_attention_heads=32)
    prefix = Prefix(prefix_shape(config), length=12)
    assert sum(p.numel() for p in prefix.parameters()) == 3_145_728  # CPT Table VI: 3.15M


def test_grouped_queries_need_fewer():
    config = AutoConfig.for_model(
        "qwen2", hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2
    )
    assert prefix_shape(config) == PrefixShape(24, 2, 64)
    assert prefix_shape(config).width == 2 * 24 * 2 * 64


@pytest.mark.parametrize("rank", [None, 5])
def test_columns_are_ordered_as_peft_orders_them(rank):
    prefix = Prefix(SHAPE, length=6, rank=rank, seed=3)
    table = prefix.collapsed()
    for layer, pair in enumerate(prefix.key_values()):
        for kv, tensor in enumerate(pair):
            assert tensor.shape == (2, 6, 4)
            for head in range(2):
                for d in range(4):
                    column = ((2 * layer + kv) * 2 + head) * 4 + d
                    assert torch.equal(tensor[head, :, d], table[:, column])


def test_factors_multiply_to_the_table_in_float64():
    prefix = Prefix(SHAPE, length=6, rank=5, seed=3)
    small, transform = prefix.small.detach().double(), prefix.transform.detach().double()
    expected = torch.zeros(6, SHAPE.width, dtype=torch.float64)
    for r in range(5):
        expected += small[:, r, None] * transform[r, None, :]
    torch.testing.assert_close(prefix.collapsed().detach().double(), expected, atol=1e-7, rtol=1e-5)
    assert set(prefix.state_dict()) == {"small", "transform"}


@pytest.mark.parametrize("rank", [None, 32])
def test_both_forms_start_at_the_same_scale(rank):
    shape = PrefixShape(8, 8, 64)
    assert Prefix(shape, length=12, rank=rank).collapsed().std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("rank", [None, 5])
def test_the_seed_alone_decides(rank):
    torch.manual_seed(1)
    first = Prefix(SHAPE, rank=rank, seed=7).collapsed()
    torch.manual_seed(2)
    assert torch.equal(first, Prefix(SHAPE, rank=rank, seed=7).collapsed())
    assert not torch.equal(first, Prefix(SHAPE, rank=rank, seed=8).collapsed())


def test_collapse_is_equal_and_independent():
    prefix = Prefix(SHAPE, rank=5)
    direct = prefix.collapse()
    assert direct.rank is None and torch.equal(direct.table, prefix.collapsed())
    with torch.no_grad():
        prefix.small.zero_()
    assert direct.table.abs().sum() > 0 and direct.table.requires_grad


@pytest.mark.parametrize("options", [{"length": 0}, {"rank": 0}])
def test_impossible_sizes_are_refused(options):
    with pytest.raises(UserError, match="cannot be: it must be a whole number from 1 up"):
        Prefix(SHAPE, **options)
