"""Loading from directories, the hub that is not there, the config files, and what is refused."""

import inspect
import json
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import SPECIAL, tiny_backbone, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from cptlab.adapters import Prefix
from cptlab.backbone import PrefixShape, load_backbone
from cptlab.backbone import loading as loading_module
from cptlab.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
BACKBONES = sorted(CONF.glob("backbone/*.yaml"))
ARCHITECTURE = {  # which tiny model stands in for which config
    "code_llama": "llama",
    "phi": "phi",
    "starcoder2": "starcoder2",
    "codegen": "codegen",
    "deepseek": "llama",
    "qwen2_5": "qwen2",
    "qwen3": "qwen3",
    "smollm2": "llama_gqa",
    "kata_lm": "llama_gqa",
    "kata_starcoder2": "starcoder2",
}


def save(directory, arch="llama_gqa", special=SPECIAL, **overrides):
    tiny_model(arch, **overrides).save_pretrained(directory)
    tiny_tokenizer(special).save_pretrained(directory)
    return str(directory)


def test_a_directory_gives_the_frozen_model(tmp_path):
    backbone = load_backbone(save(tmp_path))
    ids = torch.arange(20)[None]
    expected = tiny_model("llama_gqa")(input_ids=ids).logits
    torch.testing.assert_close(backbone.logits(ids, torch.ones_like(ids)), expected, atol=1e-5, rtol=0)
    assert not backbone.model.training and not any(p.requires_grad for p in backbone.model.parameters())
    assert backbone.shape == PrefixShape(2, 2, 8)
    assert (backbone.vocab_size, backbone.hidden_size, backbone.context_length) == (259, 32, 256)
    assert backbone.eos_ids == {256} and backbone.pad_id == 257 and backbone.mask_id == 258
    assert backbone.device == torch.device("cpu") and backbone.dtype == torch.float32


def test_dtype_and_mask_token_are_taken(tmp_path):
    backbone = load_backbone(save(tmp_path), dtype="bfloat16", mask_token="<pad>", device="auto")
    assert backbone.dtype == torch.bfloat16 and backbone.mask_id == 257


def test_the_fingerprint_follows_the_content_not_the_place(tmp_path):
    first = load_backbone(save(tmp_path / "a")).fingerprint
    assert load_backbone(save(tmp_path / "b")).fingerprint == first
    assert load_backbone(str(tmp_path / "a"), attn_implementation="eager").fingerprint == first
    assert load_backbone(str(tmp_path / "a"), dtype="bfloat16").fingerprint != first
    assert load_backbone(save(tmp_path / "c", max_position_embeddings=512)).fingerprint != first
    assert load_backbone(save(tmp_path / "d", special=SPECIAL[::-1])).fingerprint != first
    backbone = load_backbone(str(tmp_path / "a"))
    with torch.no_grad():
        backbone.model.lm_head.weight[7, 3] += 1e-3
    assert backbone.fingerprint != first


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dtype": "float31"}, "dtype=float31 cannot be: it must be float32, bfloat16 or float16"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"device": "meta"}, "no device 'meta'"),
        ({"device": "cuda:99"}, "There is no device cuda:99"),
        ({"mask_token": "<mask>"}, "'<mask>' is not one token of the vocabulary"),
        ({"mask_token": "ab"}, "'ab' is not one token"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, complaint):
    with pytest.raises(UserError, match=complaint):
        load_backbone(save(tmp_path), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no device cuda: this machine has 0 of that kind"):
        load_backbone(save(tmp_path), device="cuda")


@pytest.mark.parametrize("path", ["./missing", "/missing/model", "~/missing/model", "a/b/c"])
def test_a_missing_directory_is_named(path):
    with pytest.raises(UserError, match="There is no directory"):
        load_backbone(path)


def test_incomplete_and_damaged_directories_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no config.json"):
        load_backbone(str(tmp_path / "empty"))

    tiny_tokenizer().save_pretrained(tmp_path / "no_weights")
    tiny_model("llama").config.save_pretrained(tmp_path / "no_weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backbone(str(tmp_path / "no_weights"))

    save(tmp_path / "damaged")
    (tmp_path / "damaged/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backbone(str(tmp_path / "damaged"))

    save(tmp_path / "short")
    config = json.loads((tmp_path / "short/config.json").read_text())
    (tmp_path / "short/config.json").write_text(json.dumps(config | {"num_hidden_layers": 3, "layer_types": None}))
    with pytest.raises(UserError, match="incomplete: .* tensors are missing, the first is model.layers.2"):
        load_backbone(str(tmp_path / "short"))

    save(tmp_path / "tokens", special=(*SPECIAL, "<extra>"))
    with pytest.raises(UserError, match="token 259, but the model only 259 embeddings"):
        load_backbone(str(tmp_path / "tokens"))

    save(tmp_path / "other")
    (tmp_path / "other/config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load_backbone(str(tmp_path / "other"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub client that raises what a test puts into it, and an empty download cache."""
    errors = []

    def model_info(self, *args, **kwargs):
        assert kwargs["timeout"] <= 5
        raise errors[0]

    monkeypatch.setattr(loading_module.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return errors


def test_an_unreachable_hub_ends_within_seconds(hub):
    hub.append(ConnectionError("no route to host"))
    start = time.monotonic()
    with pytest.raises(UserError, match="hub cannot be reached .*no route to host"):
        load_backbone("someone/some-model")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (huggingface_hub.errors.RepositoryNotFoundError, "neither a local directory nor a model"),
        (huggingface_hub.errors.RevisionNotFoundError, "has no revision v9"),
        (huggingface_hub.errors.GatedRepoError, "gated.*hf auth login"),
    ],
)
def test_what_the_hub_refuses_is_said(hub, kind, complaint):
    hub.append(kind.__new__(kind))  # without the HTTP response that its constructor wants
    with pytest.raises(UserError, match=complaint):
        load_backbone("someone/some-model", revision="v9")


def test_a_name_that_is_no_hub_id_is_refused():
    with pytest.raises(UserError, match="neither a local directory nor a model"):
        load_backbone("no such name")


def test_a_model_downloaded_before_needs_no_hub(hub, tmp_path):
    hub.append(ConnectionError("no route to host"))
    cached = tmp_path / "models--someone--some-model"
    save(cached / "snapshots/0123abc")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0123abc")
    start = time.monotonic()
    for options in ({}, {"revision": "main"}, {"local_files_only": True}):
        backbone = load_backbone("someone/some-model", **options)
        assert (backbone.name, backbone.path, backbone.revision) == (*["someone/some-model"] * 2, "0123abc")
    assert time.monotonic() - start < 5
    with pytest.raises(UserError, match="not downloaded before, and local_files_only is set"):
        load_backbone("someone/other-model", local_files_only=True)


@pytest.mark.parametrize("path", BACKBONES, ids=lambda path: path.stem)
def test_every_backbone_config_loads_a_directory_of_its_architecture(path, tmp_path):
    text = path.read_text()
    assert text.startswith(f"# python train.py backbone={path.stem}\n")
    config = OmegaConf.to_container(OmegaConf.create(text))
    assert config.pop("_target_") == "cptlab.backbone.load_backbone"
    assert set(config) <= set(inspect.signature(load_backbone).parameters)
    assert "path" in config and "quantization" not in config
    arch = next(arch for name, arch in ARCHITECTURE.items() if path.stem.startswith(name))
    special = tuple(dict.fromkeys((*SPECIAL, config.get("mask_token") or SPECIAL[0])))
    save(tmp_path, arch, special, vocab_size=256 + len(special))
    backbone = load_backbone(**(config | {"path": str(tmp_path)}))
    assert backbone.mask_id is not None
    assert backbone.prompt_template is None, "chat models are asked through the tokenizer's own chat template"


@pytest.mark.parametrize("name", ["prefix", "prefix_direct"])
def test_the_prefix_configs_make_a_prefix(name):
    text = (CONF / "adapter" / f"{name}.yaml").read_text()
    assert text.startswith(f"# python train.py adapter={name}")
    config = OmegaConf.to_container(OmegaConf.create(text))
    assert config.pop("_target_") == "cptlab.adapters.Prefix" and config.pop("_partial_") is True
    prefix = Prefix(PrefixShape(2, 2, 8), seed=0, **config)
    assert prefix.length == 12 and (prefix.rank is None) == (name == "prefix_direct")


# Architectures outside the tested list: exact ones load, others are refused.


def _other(directory, kind, **values):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
    config = AutoConfig.for_model(
        kind, **({"vocab_size": 259, "eos_token_id": 256, "pad_token_id": 257, "bos_token_id": 256} | sizes | values)
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("phi3", {"intermediate_size": 48, "num_key_value_heads": 2, "sliding_window": 64}),
        ("stablelm", {"intermediate_size": 48, "num_key_value_heads": 2}),
    ],
)
def test_an_unlisted_architecture_that_is_exact_loads(kind, values, tmp_path):
    assert load_backbone(_other(tmp_path, kind, **values)).shape.num_kv_heads == 2


@pytest.mark.parametrize(
    ("kind", "values", "complaint"),
    [
        ("mamba", {}, "layers .linear_attention. that would lose"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "cannot run with a prefix"),
        (
            "gpt_neo",
            {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "intermediate_size": 48},
            "local",
        ),
        (
            "falcon",
            {"multi_query": False, "alibi": True, "new_decoder_architecture": False},
            "cannot run with a prefix",
        ),
        (
            "deepseek_v2",
            {"intermediate_size": 48, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
            | {"q_lora_rank": None, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
            "compresses keys and values",
        ),
    ],
)
def test_an_architecture_that_a_prefix_does_not_fit_is_refused(kind, values, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        load_backbone(_other(tmp_path, kind, **values))


def test_tiny_backbones_are_reproducible():
    assert tiny_backbone("phi").fingerprint == tiny_backbone("phi").fingerprint != tiny_backbone("phi", 1).fingerprint
