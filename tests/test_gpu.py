"""A GPU gives what the CPU gives. The references are computed on the CPU, in float64, or by transformers and PEFT.

Every test runs on the CPU, too, where that needs no processes of its own: what fails there is no matter of the GPU.
"""

import functools
import signal

import lightning
import pytest
import torch
import training_runs
from peft import PeftModel
from tiny_models import double, pad, random_prefix, tiny_backbone, tiny_model, tiny_tokenizer, tokens
from torch import nn

from cptlab.adapters import save_prefix
from cptlab.backbone import load_backbone
from cptlab.backbone.quantization import QuantizedLinear
from cptlab.decoding import Sampling, generate
from cptlab.records import Prompt
from cptlab.training import CPT, AdapterTraining, StepMethod
from cptlab.training.steps.batches import collate
from cptlab.training.steps.token_pairs import encode_pair

on_both = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
gpu = pytest.mark.gpu
TOLERANCE = 1e-4  # of float32, relative to the norm
# bfloat16 keeps 8 bits, 0.4% of a number. Through this tiny model with its large prefix that adds up to 2% of the norm of the
# logits and 6% of that of the gradient on a CPU, in the fast step as in the plain one: twice that is allowed.
HALF_LOGITS, HALF_GRADIENT = 0.04, 0.12
TOLERANCES = {torch.float32: (TOLERANCE, TOLERANCE), torch.bfloat16: (HALF_LOGITS, HALF_GRADIENT)}
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=lambda dtype: str(dtype).removeprefix("torch."))
TEXTS = ("def add(a, b):", "x", "Sort the list of numbers.\ndef order(items):\n")
PROMPTS = [(f"task/{i}", Prompt(text)) for i, text in enumerate(TEXTS)]


def backbone_and_prefix(device, dtype=torch.float32, arch="llama_gqa"):
    """The backbone in `dtype`; the prefix stays float32, or is float64 as the backbone."""
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone)
    backbone.model.to(device, dtype)
    return backbone, prefix.to(device, torch.promote_types(dtype, torch.float32))


def assert_close(found, expected, tolerance):
    found, expected = (tensor.detach().cpu().double() for tensor in (found, expected))
    assert expected.norm() > 0
    assert (found - expected).norm() <= tolerance * expected.norm()


@on_both
@dtypes
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_behind_a_prefix(side, dtype, device):
    ids, mask = pad(tokens(30, 17), side)
    found = []
    for where, kind in (("cpu", torch.float64), (device, dtype)):
        backbone, prefix = backbone_and_prefix(where, kind)
        with torch.no_grad():
            found.append(backbone.logits(ids.to(where), mask.to(where), prefix)[mask.bool().to(where)])
    assert found[1].dtype == dtype
    assert_close(found[1], found[0], TOLERANCES[dtype][0])


@on_both
def test_the_prefix_is_what_peft_makes_of_it(device, tmp_path):
    backbone, prefix = backbone_and_prefix(device)
    save_prefix(prefix, tmp_path, backbone)
    ids = torch.stack(tokens(20, 20)).to(device)
    peft = PeftModel.from_pretrained(tiny_model("llama_gqa").to(device), tmp_path).eval()
    with torch.no_grad():
        assert_close(backbone.logits(ids, torch.ones_like(ids), prefix), peft(input_ids=ids).logits, TOLERANCE)


@on_both
@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("with_prefix", [False, True])
def test_programs_are_those_of_the_cpu(with_prefix, temperature, device):
    """In float64, so that rounding moves no token; programs are a function of seed, task and sample on both."""
    sampling, found = Sampling(temperature=temperature, max_new_tokens=24), []
    for where in ("cpu", device):
        backbone, prefix = backbone_and_prefix(where, torch.float64)
        rows = generate(backbone, PROMPTS, 2, sampling, prefix=prefix if with_prefix else None, seed=3)
        found.append([[completion.raw for completion in row] for row in rows])
    assert found[0] == found[1] and len({raw for row in found[0] for raw in row}) >= len(TEXTS)


@on_both
def test_greedy_programs_are_those_of_transformers(device):
    backbone = double("llama_gqa")
    backbone.model.to(device)
    rows = generate(backbone, PROMPTS, 1, Sampling(temperature=0, max_new_tokens=24))
    for (_, prompt), (completion,) in zip(PROMPTS, rows, strict=True):
        ids = torch.tensor([backbone.encode_prompt(prompt.text)], device=device)
        expected = backbone.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, eos_token_id=None,
            pad_token_id=backbone.pad_id,
        )  # fmt: skip
        assert completion.raw == backbone.decode(expected[0, ids.shape[1] :])


def step(device, dtype, method):
    """The loss of a training step on three pairs, and its gradient."""
    backbone, prefix = backbone_and_prefix(device, dtype)
    module = AdapterTraining(backbone, prefix, "comparative", CPT(), method=method).to(device)
    pairs = [encode_pair(pair, backbone, True) for pair in training_runs.make_pairs()[:3]]
    loss = module.training_step([collate(pairs, backbone.pad_id).to(backbone.device)], 0)
    return loss, *torch.autograd.grad(loss, [prefix.table])


@on_both
@dtypes
@pytest.mark.parametrize("name", ["fast", "plain", "checkpointed"])
def test_a_training_step(name, dtype, device):
    method = StepMethod("fast", checkpointing=True) if name == "checkpointed" else StepMethod(name)
    found, expected = step(device, dtype, method), step("cpu", torch.float64, StepMethod("plain"))
    for ours, theirs, tolerance in zip(found, expected, TOLERANCES[dtype], strict=True):
        assert_close(ours, theirs, tolerance)


class Ended(Exception):
    """What ends a run in the middle."""


class End(lightning.Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 5:
            raise Ended


@on_both
def test_a_run_that_ended_resumes(device, tmp_path):
    """On the CPU bit for bit; on a GPU sums may be taken in another order from run to run."""
    trainer = functools.partial(lightning.Trainer, accelerator="gpu" if device == "cuda" else "cpu", devices=1)
    found = []
    for name in ("whole", "ended"):
        (directory := tmp_path / name).mkdir()
        if name == "ended":
            with pytest.raises(Ended):
                training_runs.train(directory, trainer=trainer, callbacks=[End()])
            assert (directory / "run" / "stage1" / "last.ckpt").is_file()
        adapter = training_runs.train(directory, trainer=trainer, second_epochs=1)
        assert {parameter.device.type for parameter in adapter.parameters()} == {device}
        found.append(adapter.collapsed())
    assert_close(found[1], found[0], 0 if device == "cpu" else 1e-5)


@on_both
@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_backbone_of_few_bits(kind, device, tmp_path):
    """Logits and gradient are those of a plain model whose weights are the rounded ones."""
    pytest.importorskip("accelerate")
    pytest.importorskip("bitsandbytes")
    tiny_model("llama_gqa", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    rounded = load_backbone(str(tmp_path), device=device, quantization=kind)
    plain = load_backbone(str(tmp_path), device="cpu")
    weights = {n: m.floats(torch.float32) for n, m in rounded.model.named_modules() if isinstance(m, QuantizedLinear)}
    for name, weight in weights.items():
        layer = plain.model.get_submodule(name)
        assert isinstance(layer, nn.Linear) and not torch.equal(layer.weight, weight.cpu())
        layer.weight.data.copy_(weight)
    assert len(weights) >= 14
    ids, found = torch.stack(tokens(20, 20)), []
    for backbone in (rounded, plain):
        prefix = random_prefix(plain).to(backbone.device)
        logits = backbone.logits(ids.to(backbone.device), torch.ones_like(ids).to(backbone.device), prefix)
        found.append((logits, *torch.autograd.grad(logits.log_softmax(-1)[..., 3].sum(), [prefix.table])))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, 1e-3)


@gpu
@pytest.mark.parametrize("strategy", ["ddp", "sharded_layers"])
def test_several_gpus_train_what_the_cpu_does(strategy, tmp_path):
    """On as many as there are, at most two; one GPU alone takes the same path. Norms and rotary embeddings are float32, whose last
    bit AdamW makes 4e-7 of the adapter; a gradient that was not averaged would be far from it."""
    count = min(2, torch.cuda.device_count())
    options = {"accelerator": "gpu", "devices": count, "strategy": strategy}
    code, output = training_runs.launch(tmp_path / "gpu", double=True, **options)
    assert code == 0, output
    training_runs.write_file(tmp_path)
    expected = training_runs.train(tmp_path, double=True, batch_size=count).state_dict()
    for rank in range(count):
        found = torch.load(tmp_path / "gpu" / f"rank{rank}.pt")
        for name, tensor in expected.items():
            assert_close(found["adapter"][name], tensor, 1e-5)
    assert found["held"] < found["all"] if count > 1 and strategy == "sharded_layers" else True


@gpu
@pytest.mark.parametrize("strategy", ["ddp", "sharded_layers"])
def test_several_gpus_resume_after_a_kill(strategy, tmp_path):
    options = {"accelerator": "gpu", "devices": min(2, torch.cuda.device_count()), "strategy": strategy}
    moment = ("comparative", "on_train_batch_end", 2)
    assert training_runs.launch(tmp_path / "killed", killed=moment, **options)[0] == -signal.SIGKILL
    for name in ("killed", "whole"):
        code, output = training_runs.launch(tmp_path / name, **options)
        assert code == 0, output
    found, expected = (torch.load(tmp_path / name / "rank0.pt")["adapter"] for name in ("killed", "whole"))
    for name, tensor in expected.items():
        assert_close(found[name], tensor, 1e-5)
