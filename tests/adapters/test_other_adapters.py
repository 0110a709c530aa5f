"""LoRA and full fine-tuning: start, independence of the backbone, and files that PEFT and transformers load alone."""

import math

import peft
import pytest
import torch
from tiny_models import ARCHITECTURES, double, pad, tiny_backbone, tiny_model, tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

from cptlab.adapters import Prefix, load_adapter, read_extra
from cptlab.adapters.full import FullFineTuning
from cptlab.adapters.lora import LoRA
from cptlab.errors import UserError
from cptlab.storage.run_directory import adapter_kind

KINDS = {"lora": LoRA, "full": FullFineTuning}


def moved(adapter, scale=0.1):
    """The adapter away from its start."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return adapter


@torch.no_grad()
def logits_of(backbone, ids):
    return backbone.logits(ids, torch.ones_like(ids))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_policy_starts_as_the_backbone_and_leaves_it_alone(arch, kind):
    backbone, ids = tiny_backbone(arch), tokens(40)[0][None]
    before, expected = {n: t.clone() for n, t in backbone.model.state_dict().items()}, logits_of(backbone, ids)
    adapter = KINDS[kind](backbone)
    policy = adapter.policy(backbone)
    assert policy.prefix is None and torch.equal(logits_of(policy.backbone, ids), expected)
    moved(adapter)
    assert (logits_of(policy.backbone, ids) - expected).abs().max() > 0.01
    assert torch.equal(logits_of(backbone, ids), expected)
    after = backbone.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_lora_takes_the_memory_of_its_matrices_alone():
    backbone = tiny_backbone("llama")
    adapter = LoRA(backbone, r=4, target_modules=["q_proj"])
    own = {id(parameter) for parameter in adapter.parameters()}
    copy = adapter.policy(backbone).backbone.model
    assert {id(p) for p in copy.parameters()} - own == {id(p) for p in backbone.model.parameters()}
    assert {id(b) for b in copy.buffers()} == {id(b) for b in backbone.model.buffers()}
    hidden = backbone.hidden_size
    assert sum(p.numel() for p in adapter.parameters()) == backbone.shape.num_layers * 2 * 4 * hidden
    assert all(p.dtype == torch.float32 for p in LoRA(half("llama")).parameters())


def half(arch):
    backbone = tiny_backbone(arch)
    backbone.model.to(torch.bfloat16)
    return backbone


def test_lora_is_the_papers_formula():
    """y = W x + (alpha / r) B A x, with A uniform within 1 / sqrt(inputs) at the start, and B zero."""
    backbone = double("llama")
    adapter = LoRA(backbone, r=3, alpha=12, target_modules=["down_proj"])
    names = dict(adapter.weights.items())
    for name, weight in names.items():
        bound = 1 / math.sqrt(weight.shape[1])
        assert weight.abs().max() == 0 if name.endswith("lora_B") else 0.8 * bound < weight.abs().max() <= bound
    moved(adapter)
    merged = tiny_backbone("llama")
    merged.model.double()
    for name, layer in merged.model.named_modules():
        if name.endswith("down_proj"):
            a, b = (names[f"{name.replace('.', '/')}/lora_{side}"] for side in "AB")
            layer.weight.data += 12 / 3 * b.detach() @ a.detach()
    ids = tokens(40)[0][None]
    torch.testing.assert_close(
        logits_of(adapter.policy(backbone).backbone, ids), logits_of(merged, ids), rtol=1e-9, atol=1e-9
    )


def test_lora_is_drawn_from_its_seed_alone():
    backbone, state = tiny_backbone("llama"), torch.get_rng_state()
    first = LoRA(backbone, seed=3).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(5)
    again, other = LoRA(backbone, seed=3).state_dict(), LoRA(backbone, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_dropout_is_on_in_training_alone_and_drawn_from_the_step():
    backbone, ids = tiny_backbone("llama"), tokens(40)[0][None]
    adapter = moved(LoRA(backbone, dropout=0.5))
    model, still = adapter.policy(backbone).backbone, logits_of(adapter.eval().policy(backbone).backbone, ids)
    assert not model.model.training
    adapter.train()
    assert not model.model.training
    drawn = []
    for step in (1, 1, 2):
        state = torch.get_rng_state()
        with adapter.seeded_randomness(step, 0):
            drawn.append(logits_of(model, ids))
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], still)
    adapter.eval()
    assert torch.equal(logits_of(model, ids), still)


@pytest.mark.parametrize("options", [{}, {"r": 2, "alpha": 3, "target_modules": "all-linear"}], ids=["usual", "all"])
@pytest.mark.parametrize("arch", ["llama", "qwen2", "gpt2", "mixtral"])
def test_peft_loads_an_exported_lora(arch, options, tmp_path):
    backbone, ids = tiny_backbone(arch), tokens(40)[0][None]
    adapter = moved(LoRA(backbone, **options))
    adapter.export(tmp_path / "lora", backbone, {"run": "x"})
    assert {path.name for path in (tmp_path / "lora").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "cptlab.json",
    }
    expected = logits_of(adapter.policy(backbone).backbone, ids)
    theirs = peft.PeftModel.from_pretrained(tiny_model(arch), str(tmp_path / "lora")).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert adapter_kind(tmp_path) == "lora" and read_extra(tmp_path / "lora")["run"] == "x"
    back = load_adapter(tmp_path, backbone)
    assert torch.equal(logits_of(back.policy(backbone).backbone, ids), expected)
    assert back.digest() == adapter.digest() != LoRA(backbone, **options).digest()
    assert back.description() == adapter.description()


def test_a_lora_that_peft_saved_is_loaded(tmp_path):
    model = tiny_model("llama")
    config = peft.LoraConfig(r=3, target_modules=["v_proj"], use_rslora=True, task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora" in name:
                parameter.normal_()
    theirs.save_pretrained(tmp_path / "lora")
    backbone, ids = tiny_backbone("llama"), tokens(40)[0][None]
    found = load_adapter(tmp_path, backbone).policy(backbone).backbone
    with torch.no_grad():
        torch.testing.assert_close(logits_of(found, ids), theirs(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])  # gpt2's and qwen2's heads are tied to the embeddings
def test_transformers_loads_an_exported_model(arch, tmp_path):
    backbone, ids = tiny_backbone(arch), tokens(40)[0][None]
    adapter = moved(FullFineTuning(backbone))
    adapter.export(tmp_path / "full", backbone)
    expected = logits_of(adapter.policy(backbone).backbone, ids)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "full").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    text = "def f(x):\n    return x"
    assert AutoTokenizer.from_pretrained(tmp_path / "full")(text).input_ids == backbone.tokenizer(text).input_ids
    back = load_adapter(tmp_path, backbone)
    assert torch.equal(logits_of(back.policy(backbone).backbone, ids), expected)
    assert back.digest() == adapter.digest() != FullFineTuning(backbone).digest()


def test_the_copy_that_is_fine_tuned_is_in_float32():
    backbone = half("llama")
    adapter = FullFineTuning(backbone)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32} and backbone.dtype == torch.bfloat16
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_decoding_are_exact(kind):
    """A padded row gives the logits of the row alone, and decoding step by step those of one pass."""
    backbone = double("llama_gqa")
    policy = moved(KINDS[kind](backbone)).policy(backbone).backbone
    rows = tokens(9, 14)
    ids, mask = pad(rows, "left")
    with torch.no_grad():
        torch.testing.assert_close(policy.logits(ids, mask)[0, -9:], logits_of(policy, rows[0][None])[0])
        _, state = policy.prefill(ids[:, :10], mask[:, :10])
        steps = torch.stack([policy.step(ids[:, i], state) for i in range(10, 14)], dim=1)
        torch.testing.assert_close(steps, policy.logits(ids, mask)[:, 10:])


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda b: LoRA(b, r=0), "LoRA: r=0 cannot be: it must be a whole number from 1 up."),
        (lambda b: LoRA(b, dropout=1.0), "LoRA: dropout=1.0 cannot be"),
        (lambda b: LoRA(b, target_modules=["nothing"]), "LoRA cannot be put on tiny-llama: "),
    ],
)
def test_mistakes(make, said):
    with pytest.raises(UserError) as error:
        make(tiny_backbone("llama"))
    assert str(error.value).startswith(said)


def test_an_export_that_is_cut_short_leaves_no_model(tmp_path, monkeypatch):
    backbone = tiny_backbone("llama")
    adapter = FullFineTuning(backbone)

    def full_disk(*_):
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(backbone.tokenizer, "save_pretrained", full_disk)
        with pytest.raises(OSError, match="no space"):
            adapter.export(tmp_path / "full", backbone)
    assert adapter_kind(tmp_path) is None
    adapter.export(tmp_path / "full", backbone)
    assert adapter_kind(tmp_path) == "full" and len(list(tmp_path.iterdir())) == 1


def test_files_that_do_not_fit_are_refused(tmp_path):
    backbone = tiny_backbone("llama")
    with pytest.raises(UserError, match="holds no trained adapter"):
        load_adapter(tmp_path, backbone)
    (tmp_path / "a/lora").mkdir(parents=True)
    with pytest.raises(UserError, match="There is no adapter_config.json"):
        load_adapter(tmp_path / "a", backbone)
    Prefix(backbone.shape, length=3).export(tmp_path / "b/lora", backbone)
    with pytest.raises(UserError, match="PREFIX_TUNING, not LORA"):
        load_adapter(tmp_path / "b", backbone)
    LoRA(backbone).export(tmp_path / "c/lora", backbone)
    with pytest.raises(UserError, match="belongs to another backbone"):
        load_adapter(tmp_path / "c", tiny_backbone("llama_gqa"))
    FullFineTuning(backbone).export(tmp_path / "d/full", backbone)
    with pytest.raises(UserError, match="of another architecture"):
        load_adapter(tmp_path / "d", tiny_backbone("gpt2"))
    (tmp_path / "c/lora/adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_adapter(tmp_path / "c", backbone)
