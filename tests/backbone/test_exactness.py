"""The check that an untested architecture passes when it is loaded: what is refused, and why."""

import pytest
import torch
from tiny_models import CLOSE, VOCAB, alone, pad, random_prefix, tiny_backbone, tiny_tokenizer, tokens
from transformers import AutoConfig, AutoModelForCausalLM

from cptlab.backbone import Backbone
from cptlab.backbone.exactness import check_exact
from cptlab.decoding import Guidance, Masked, Sampling, generate
from cptlab.errors import UserError
from cptlab.records import Prompt, Span

SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 256, "initializer_range": 0.3,
    "pad_token_id": 1, "eos_token_id": 256, "bos_token_id": 256,
}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
MIXED = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"] * 2}
GREEDY = {"temperature": 0, "heal": False}
PROMPTS = [
    ("a", Prompt("Add the numbers.\ndef add(a, b):", spans=(Span("nl", 0, 16),))),
    ("b", Prompt("# sum of sum\n", spans=(Span("nl", 9, 12),))),
    ("c", Prompt("nothing to anchor here, but rather long")),
]


def backbone_of(model_type, **values):
    """A tiny backbone with random weights of any of transformers' causal types."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **values))
    return Backbone(model, tiny_tokenizer(), model_type)


def longrope(original):
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.5, 3.0, 4.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": original} | factors
    values = {"sliding_window": None, "rope_parameters": rope, "original_max_position_embeddings": original}
    return backbone_of("phi3", **GROUPED | values)


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert"])
def test_positions_that_start_elsewhere_are_refused(kind):
    with pytest.raises(UserError, match="gives other logits than its own forward pass, so results would be wrong"):
        check_exact(backbone_of(kind, **SMALL | {"is_decoder": True}))


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_encoders_are_refused(kind):
    with pytest.raises(UserError, match="lets tokens see what comes after them"):
        check_exact(backbone_of(kind, **SMALL | {"is_decoder": False, "embedding_size": 32}))


def test_a_window_that_the_model_does_not_apply_is_refused():
    backbone = tiny_backbone("llama_gqa")
    backbone.window = 8
    with pytest.raises(UserError, match="sliding window that its own forward pass applies otherwise"):
        check_exact(backbone)
    assert backbone.window == 8


@pytest.mark.parametrize("of", ["layer", "dimension"])
def test_a_part_of_the_prefix_that_changes_nothing_is_refused(of, monkeypatch):
    backbone = tiny_backbone("llama_gqa")
    key_values = backbone._key_values

    def partly_dead(prefix, batch):
        (_, _), (keys, values) = key_values(prefix, batch)
        return [
            (0 * keys, 0 * values) if of == "layer" else (keys, values * (torch.arange(8) > 0)),
            (keys, values * (torch.arange(8) > 0) if of == "dimension" else values),
        ]

    monkeypatch.setattr(backbone, "_key_values", partly_dead)
    with pytest.raises(UserError, match="does not see all of the prefix"):
        check_exact(backbone)


def test_rotary_factors_that_hang_on_the_batch_are_refused():
    backbone = longrope(32)
    check_exact(backbone)
    backbone.context_length, backbone.context_note = 256, ""
    with pytest.raises(UserError, match="beside a row at the end of its context"):
        check_exact(backbone)


@torch.no_grad()
def test_longrope_keeps_to_its_original_context():
    backbone = longrope(32)
    assert backbone.context_length == 32
    short, just, long = tokens(10, 32, 33)
    expected = backbone.model(input_ids=short[None]).logits[0]
    ids, mask = pad([short, just], "right")
    torch.testing.assert_close(backbone.logits(ids, mask)[0, :10], expected, **CLOSE)
    with pytest.raises(UserError, match="has 33 positions, but phi3 takes 32 .*longrope"):
        alone(backbone, long, None)
    fits = Sampling(**GREEDY, max_new_tokens=8)
    assert len(list(generate(backbone, PROMPTS[1:2], 1, fits))) == 1
    with pytest.raises(
        UserError, match="task b has 13 tokens and needs room for 20 more, but the context of phi3 is 32"
    ):
        generate(backbone, PROMPTS[1:2], 1, Sampling(**GREEDY, max_new_tokens=20))


@pytest.mark.parametrize("with_prefix", [False, True])
def test_layers_that_share_keys_have_no_prefix_of_their_own(with_prefix):
    """Gemma 3n: the last layers read the keys of earlier ones."""
    more = {"vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 8, "laurel_rank": 8}
    values = GROUPED | MIXED | more | {"num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 4}
    backbone = backbone_of("gemma3n_text", **values)
    assert backbone.shape.num_layers == 2
    check_exact(backbone)
    prefix = random_prefix(backbone)
    (row,) = tokens(20)
    alone(backbone, row, prefix).log_softmax(-1)[:, 5].sum().backward()
    assert (prefix.table.grad != 0).all()
    sampling, guidance = Sampling(**GREEDY, max_new_tokens=24), Guidance(Masked(("nl",)), 1.3)
    options = {"prefix": prefix if with_prefix else None, "guidance": guidance}
    together = [rows[0].raw for rows in generate(backbone, PROMPTS, 1, sampling, **options)]
    apart = [next(iter(generate(backbone, [one], 1, sampling, **options)))[0].raw for one in PROMPTS]
    assert together == apart


@torch.no_grad()
def test_of_a_composite_config_the_text_part_is_taken():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    sizes = {"image_size": 28, "patch_size": 14}
    backbone = backbone_of("gemma3", text_config=GROUPED | MIXED | {"sliding_window": 12}, vision_config=vision | sizes)
    check_exact(backbone)
    assert (backbone.vocab_size, backbone.shape.num_layers, backbone.window) == (VOCAB, 4, 12)
    (row,) = tokens(24)
    torch.testing.assert_close(alone(backbone, row, None), backbone.model(input_ids=row[None]).logits[0], **CLOSE)


@pytest.mark.parametrize("kind", ["llama4", "qwen3_5"])
def test_a_text_part_that_loses_a_prefix_is_refused(kind):
    with pytest.raises(UserError, match="layers .* that would lose a prefix"):
        backbone_of(kind, text_config={"vocab_size": VOCAB, "num_hidden_layers": 4, "hidden_size": 32, "head_dim": 8})
