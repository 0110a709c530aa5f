"""GGUF files as backbones: a tiny one is the model that it was made of, rounded as its format says; others are refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import VOCAB, tiny_model, tiny_tokenizer

from cptlab.adapters import Prefix, save_prefix
from cptlab.backbone import gguf_file, load_backbone, load_config
from cptlab.backbone import loading as loading_module
from cptlab.errors import UserError

gguf = pytest.importorskip("gguf", reason="needs the package gguf (extra test)")
TWO_SPACES = "ĠĠ"  # one merge, without which transformers takes the tokenizer for another kind
CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}"
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
}  # fmt: skip


def q8_0(weight):
    """Blocks of 32 numbers, each rounded to 8 bits with one float16 scale: the bytes of the format, and their values."""
    blocks = weight.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float32)
    rounded = np.clip(np.round(blocks / scale), -127, 127).astype(np.int8)
    half = scale.astype(np.float16)
    data = np.concatenate([half.view(np.uint8), rounded.view(np.uint8)], axis=1)
    values = half.astype(np.float32) * rounded.astype(np.float32)
    return data.reshape(*weight.shape[:-1], -1), values.reshape(weight.shape)


def write(path, **overrides):
    """Write a tiny Qwen2 to a GGUF file, its matrices as Q8_0; return the model with the rounded weights."""
    model, tokenizer = tiny_model("qwen2", vocab_size=VOCAB + 1, **overrides), tiny_tokenizer()
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*(token for token, _ in vocabulary), TWO_SPACES])
    writer.add_token_types([1] * 256 + [3] * (len(vocabulary) - 256) + [1])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(CHAT)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for ours, theirs in NAMES.items():
                name = name.replace(ours, theirs)
            weight = parameter.numpy()
            if weight.ndim == 2 and weight.shape[1] % 32 == 0:
                data, values = q8_0(weight)
                writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
                parameter.copy_(torch.from_numpy(values))
            else:
                writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def test_the_model_is_that_of_the_file(tmp_path, capfd):
    expected = write(tmp_path / "tiny-q8_0.gguf")
    backbone = load_backbone(str(tmp_path / "tiny-q8_0.gguf"))
    assert capfd.readouterr() == ("", ""), "no progress bars"
    ids = torch.arange(20)[None]
    torch.testing.assert_close(backbone.logits(ids, torch.ones_like(ids)), expected(input_ids=ids).logits)
    assert backbone.dtype == torch.float32 and backbone.context_length == 256 and backbone.eos_ids == {256}
    assert backbone.tokenizer.get_vocab() == tiny_tokenizer().get_vocab() | {TWO_SPACES: VOCAB}
    assert backbone.encode_prompt("def f(é):\n\tx  ") == [*tiny_tokenizer()("def f(é):\n\tx").input_ids, VOCAB]
    assert backbone.tokenizer.chat_template == CHAT
    assert load_backbone(str(tmp_path / "tiny-q8_0.gguf"), dtype="bfloat16").dtype == torch.bfloat16


def test_a_directory_that_holds_one_file_stands_for_it(tmp_path):
    write(tmp_path / "tiny.gguf")
    (tmp_path / "README.md").write_text("a model")
    backbone = load_backbone(str(tmp_path))
    assert backbone.path == str(tmp_path / "tiny.gguf"), "what PEFT's files name as the base model"
    assert backbone.fingerprint == load_backbone(backbone.path).fingerprint
    config, is_here = load_config(str(tmp_path))
    assert (config.model_type, config.num_hidden_layers, is_here) == ("qwen2", 2, True)
    save_prefix(Prefix(backbone.shape, seed=0), tmp_path / "prefix", backbone)
    named = json.loads((tmp_path / "prefix/adapter_config.json").read_text())["base_model_name_or_path"]
    assert load_backbone(named).fingerprint == backbone.fingerprint


def test_the_directory_of_a_converted_file_is_the_same_backbone(tmp_path):
    """What docs/real-llms.md says on converting: the fingerprint, and so every stored result, stays."""
    write(tmp_path / "tiny.gguf")
    backbone = load_backbone(str(tmp_path / "tiny.gguf"))
    fingerprint = backbone.fingerprint
    backbone.model.save_pretrained(tmp_path / "converted")
    backbone.tokenizer.save_pretrained(tmp_path / "converted")
    converted = load_backbone(str(tmp_path / "converted"))
    ids = torch.arange(20)[None]
    assert torch.equal(backbone.logits(ids, ids + 1), converted.logits(ids, ids + 1))
    assert converted.fingerprint == fingerprint
    write(tmp_path / "converted/tiny.gguf", seed=1)
    assert load_backbone(str(tmp_path / "converted")).fingerprint == fingerprint, "the directory's own weights"


@pytest.mark.parametrize(
    ("names", "given", "complaint"),
    [
        ([], "absent.gguf", "There is no file .*absent.gguf"),
        (["a-q4.gguf", "a-q8.gguf"], "", "holds 2 GGUF files: a-q4.gguf, a-q8.gguf. Set backbone.path to one"),
        (["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"], "", "one of 2 parts of a model. Join them"),
        (["a-00002-of-00002.gguf"], "a-00002-of-00002.gguf", "one of 2 parts of a model. Join them"),
        (["page.gguf"], "page.gguf", "page.gguf cannot be loaded as a causal language model"),
    ],
)
def test_files_that_are_no_model_are_refused(tmp_path, names, given, complaint):
    for name in names:
        (tmp_path / name).write_text("<html>not found</html>")
    with pytest.raises(UserError, match=complaint):
        load_backbone(str(tmp_path / given))


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    write(tmp_path / "tiny.gguf")
    data = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "tiny.gguf").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="tiny.gguf cannot be loaded .* or download it again"):
        load_backbone(str(tmp_path / "tiny.gguf"))


def test_what_cannot_be_read_here_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    write(tmp_path / "tiny.gguf")
    with pytest.raises(UserError, match="backbone.quantization=8bit cannot round its weights once more"):
        load_backbone(str(tmp_path / "tiny.gguf"), quantization="8bit")
    monkeypatch.setattr(gguf_file, "is_gguf_available", lambda: False)
    with pytest.raises(UserError, match=r"needs the packages gguf and accelerate. .*pip install 'cptlab\[gguf\]'"):
        load_backbone(str(tmp_path))


def test_a_hub_repository_of_gguf_files_says_how_to_get_one(monkeypatch):
    files = [SimpleNamespace(rfilename=name) for name in ("README.md", "q8_0.gguf", "q4_k_m.gguf")]
    monkeypatch.setattr(
        loading_module.HfApi, "model_info", lambda *_, **__: SimpleNamespace(sha="0123abc", siblings=files)
    )
    with pytest.raises(UserError, match="hf download someone/model-GGUF q4_k_m.gguf --local-dir DIR"):
        load_backbone("someone/model-GGUF")
