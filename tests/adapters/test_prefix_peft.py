"""Exported prefixes in Hugging Face PEFT: equal where PEFT is exact, and where it is not, the difference."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, CLOSE, SLIDING, M, alone, pad, random_prefix, tiny_backbone, tiny_model, tokens

from cptlab.adapters import load_prefix, read_extra, save_prefix
from cptlab.backbone import PrefixShape
from cptlab.errors import UserError


def in_peft(arch, directory, **overrides):
    return peft.PeftModel.from_pretrained(tiny_model(arch, **overrides), directory).eval()


def greedy(backbone, row, prefix, n):
    logits, state = backbone.prefill(row[None], torch.ones(1, len(row), dtype=torch.long), prefix)
    chosen = []
    for _ in range(n):
        chosen.append(logits.argmax(-1))
        logits = backbone.step(chosen[-1], state)
    return torch.cat(chosen)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@torch.no_grad()
def test_export_gives_the_same_logits_and_greedy_text_in_peft(arch, tmp_path):
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone, rank=3)
    save_prefix(prefix, tmp_path, backbone)
    model = in_peft(arch, tmp_path)
    (row,) = tokens(20)
    ones = torch.ones(1, 20, dtype=torch.long)
    logits = model(input_ids=row[None], attention_mask=ones).logits[0]
    torch.testing.assert_close(alone(backbone, row, prefix), logits, atol=1e-5, rtol=0)
    options = {"max_new_tokens": 30, "do_sample": False, "eos_token_id": None, "pad_token_id": 257}
    text = model.generate(input_ids=row[None], attention_mask=ones, **options)[0, 20:]
    assert greedy(backbone, row, prefix, 30).tolist() == text.tolist()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@torch.no_grad()
def test_peft_agrees_on_a_padded_batch_once_it_is_told_the_positions(arch, tmp_path):
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone)
    save_prefix(prefix, tmp_path, backbone)
    model = in_peft(arch, tmp_path)
    ids, mask = pad(tokens(9, 20), "left")
    ours = backbone.logits(ids, mask, prefix)[0, 11:]
    told = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits[0, 11:]
    torch.testing.assert_close(ours, told, **CLOSE)
    # Untold, it counts the padding. The prefix is not rotated, so this matters on rotary models too.
    untold = model(input_ids=ids, attention_mask=mask).logits[0, 11:]
    assert (untold - ours).abs().max() > 0.01


@pytest.mark.parametrize("arch", SLIDING)
@torch.no_grad()
def test_in_peft_the_prefix_scrolls_out_of_a_sliding_window(arch, tmp_path):
    overrides = SLIDING[arch] | {"num_hidden_layers": 1}
    if "layer_types" in overrides:
        overrides["layer_types"] = ["sliding_attention"]
    backbone = tiny_backbone(arch, **overrides)
    (row,) = tokens(20)
    ours, theirs = [], []
    for seed in (1, 2):
        prefix = random_prefix(backbone, seed=seed)
        save_prefix(prefix, tmp_path, backbone)
        ours.append(alone(backbone, row, prefix))
        theirs.append(in_peft(arch, tmp_path, **overrides)(input_ids=row[None]).logits[0])
    beginning = slice(0, 8 - M)  # here the window of 8 still reaches back to the prefix's first position
    torch.testing.assert_close(ours[0][beginning], theirs[0][beginning], atol=1e-5, rtol=0)
    end = slice(8, 20)
    assert torch.equal(theirs[0][end], theirs[1][end])  # PEFT: which prefix it is makes no difference any more
    assert ((ours[0] - ours[1])[end].abs().amax(dim=-1) > 0.01).all()


def test_peft_refuses_gradient_checkpointing(tmp_path):
    model = tiny_model("llama")
    model.gradient_checkpointing_enable()
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=M)
    with pytest.raises(ValueError, match="gradient checkpointing"):
        peft.get_peft_model(model, config)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_import_gives_the_same_tensor_bit_for_bit(arch, tmp_path):
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone, rank=3)
    save_prefix(prefix, tmp_path / "a", backbone, extra={"seed": 1})
    loaded = load_prefix(tmp_path / "a", backbone.shape)
    assert torch.equal(loaded.table, prefix.collapsed()) and loaded.length == M and loaded.table.requires_grad
    save_prefix(loaded, tmp_path / "b", backbone)
    assert (tmp_path / "a/adapter_model.safetensors").read_bytes() == (
        tmp_path / "b/adapter_model.safetensors"
    ).read_bytes()
    assert read_extra(tmp_path / "a") == {"backbone": backbone.name, "fingerprint": backbone.fingerprint, "seed": 1}


def test_config_has_the_keys_that_peft_itself_writes(tmp_path):
    backbone = tiny_backbone("llama_gqa")
    save_prefix(random_prefix(backbone), tmp_path / "ours", backbone)
    in_peft("llama_gqa", tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / d / "adapter_config.json").read_text()) for d in ("ours", "theirs"))
    assert set(theirs) - set(ours) <= {"peft_version", "modules_to_save"}
    changed = {key for key in ours if ours[key] != theirs.get(key)}
    assert changed <= {"base_model_name_or_path"}
    ours, theirs = (load_file(tmp_path / d / "adapter_model.safetensors") for d in ("ours", "theirs"))
    assert set(ours) == set(theirs) == {"prompt_embeddings"}
    assert torch.equal(ours["prompt_embeddings"], theirs["prompt_embeddings"])


@torch.no_grad()
def test_an_adapter_that_peft_trained_with_a_projection_is_imported(tmp_path):
    """PEFT cannot train it further; the collapsed table that it stores is a direct prefix here."""
    torch.manual_seed(0)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=M, prefix_projection=True)
    model = peft.get_peft_model(tiny_model("llama_gqa"), config).eval()
    model.save_pretrained(tmp_path)
    backbone = tiny_backbone("llama_gqa")
    (row,) = tokens(20)
    expected = model(input_ids=row[None]).logits[0]
    torch.testing.assert_close(alone(backbone, row, load_prefix(tmp_path)), expected, atol=1e-5, rtol=0)
    assert read_extra(tmp_path) == {}


def test_the_prefix_of_another_backbone_shows_both_shapes(tmp_path):
    small, large = tiny_backbone("llama_gqa"), tiny_backbone("llama")
    prefix = random_prefix(small)
    save_prefix(prefix, tmp_path, small)
    both = "2 layers x 2 key/value heads x 8.*2 layers x 4 key/value heads x 8"
    with pytest.raises(UserError, match=both):
        load_prefix(tmp_path, large.shape)
    with pytest.raises(UserError, match=both):
        alone(large, tokens(5)[0], prefix)


def test_what_is_not_a_prefix_is_refused(tmp_path):
    with pytest.raises(UserError, match="no adapter_config.json"):
        load_prefix(tmp_path / "nothing")
    backbone = tiny_backbone("llama")
    save_prefix(random_prefix(backbone), tmp_path, backbone)
    config = json.loads((tmp_path / "adapter_config.json").read_text())

    def with_config(**values):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | values))

    with_config(peft_type="LORA")
    with pytest.raises(UserError, match="LORA, not PREFIX_TUNING"):
        load_prefix(tmp_path)
    with_config(num_virtual_tokens=M + 1)
    with pytest.raises(UserError, match="damaged"):
        load_prefix(tmp_path)
    with_config(num_attention_heads=0)
    with pytest.raises(UserError, match="cannot be read"):
        load_prefix(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[1]")
    with pytest.raises(UserError, match="cannot be read"):
        load_prefix(tmp_path)
    with_config()
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_prefix(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_prefix(tmp_path, PrefixShape(1, 1, 1))
