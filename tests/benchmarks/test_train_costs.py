"""The formula of a training step's operations, by hand. `test_train_step_benchmark.py` counts the real ones."""

import sys
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_backbone
from transformers import AutoConfig, AutoModelForCausalLM

from cptlab.training.steps.token_pairs import Lengths

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from train_costs import VARIANTS, ModelSize, naive_flops, plain_flops, step_flops  # noqa: E402

SMALL = ModelSize(parameters=1000, hidden=10, vocabulary=100, layers=2, heads=2, head_dim=5)
PAIR = Lengths(instruction=4, common=3, rest_a=2, rest_b=2, masked_a=1, masked_b=1)


def fast_flops(size, lengths, prefix):
    return step_flops(size, lengths, prefix, **VARIANTS["all"])


def predicted_ratio(size, lengths, prefix):
    return naive_flops(size, lengths, prefix).total / fast_flops(size, lengths, prefix).total


def test_naive_and_fast_step_by_hand():
    naive, fast = naive_flops(SMALL, PAIR, prefix=1), fast_flops(SMALL, PAIR, prefix=1)
    assert naive.backbone + naive.head == 6 * 9 * (2 * 1000 + 2 * 10 * 100) == 216_000
    # 3 passes of 2 rows, 9 queries x 10 keys; a causal forward of 2 rows, 45 queries and keys
    assert naive.attention == 6 * 4 * 9 * 10 * 20 + 2 * 4 * 45 * 20 == 50_400
    assert fast.backbone == 2 * 2 * 1000 * (4 + 3 + 2 * 2) == 44_000
    assert fast.head == 2 * 10 * 100 * (4 * 1 + 3 * (3 + 2 * (2 - 1))) == 38_000
    assert fast.attention == 3 * 4 * 11 * 12 * 20 == 31_680
    assert predicted_ratio(SMALL, PAIR, 1) == 266_400 / 113_680


def test_each_trick_by_hand():
    def parts(**tricks):
        flops = step_flops(SMALL, PAIR, 1, **tricks)
        return flops.backbone, flops.head, flops.attention

    assert parts(cached=True) == (4 * 9 * 2000, (4 * 9 + 2 * 5) * 2000, 6 * 4 * 9 * 10 * 20)
    assert parts(shared=True) == (3 * 11 * 2000, 3 * 11 * 2000, 3 * 4 * 11 * 12 * 20 + 4 * 11 * 11 * 20)
    # of 10 code tokens 2 are masked, which the reference is not asked about
    assert parts(needed=True) == (6 * 9 * 2000, (2 * 10 + 8) * 2000, naive_flops(SMALL, PAIR, 1).attention)


def test_plain_step_is_padded_to_the_longer_program():
    assert plain_flops(SMALL, PAIR, 1) == naive_flops(SMALL, PAIR, 1)
    longer = Lengths(4, 3, 2, 6, 1, 1)
    plain = plain_flops(SMALL, longer, 1)
    assert plain.backbone + plain.head == 6 * 13 * 4000
    assert plain.attention == 6 * 4 * 13 * 14 * 20 + 2 * 4 * 13 * 13 * 20  # a dense mask without prefix too


@pytest.mark.parametrize(
    "name, config, wanted",
    [
        (
            "llama",
            {"vocab_size": 32016, "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008},
            2.4,  # Code Llama 7B
        ),
        (
            "qwen2",
            {"vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864,
             "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
            2.6,  # Qwen2.5 0.5B
        ),
    ],
)  # fmt: skip
def test_predicted_ratio_of_known_models(name, config, wanted):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **config))
    ratio = predicted_ratio(ModelSize.of(model), Lengths(400, 50, 150, 150, 40, 40), 12)
    assert abs(ratio - wanted) < 0.1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_size_of_a_model(arch):
    model = tiny_backbone(arch).model
    size = ModelSize.of(model)
    tables = {
        p.data_ptr(): p.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()
    }
    tables |= {p.data_ptr(): p.numel() for p in model.get_output_embeddings().parameters()}
    unused = sum(p.numel() / 2 for n, p in model.named_parameters() if ".experts." in n)  # two of four
    assert size.parameters == sum(p.numel() for p in model.parameters()) - sum(tables.values()) - unused
    assert (size.hidden, size.vocabulary, size.layers, size.heads, size.head_dim) == (
        *(32, 259, 2, 4),
        16 if arch == "qwen3" else 8,
    )
