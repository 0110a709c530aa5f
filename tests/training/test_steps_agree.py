"""The fast step against the plain one: loss, every term, diagnostics and the prefix's gradient, in float64."""

import random
from dataclasses import replace

import pytest
import torch
from step_agreement import FLOAT32, assert_agree, exact_norms, pairs, prefixes_of, step_of
from tiny_models import ARCHITECTURES, SLIDING, VOCAB, double, tiny_backbone, tiny_tokenizer
from torch import nn
from training_runs import make_adapter, make_pairs
from transformers import AutoConfig, AutoModelForCausalLM

from cptlab.adapters.lora import LoRA
from cptlab.backbone import Backbone, load_backbone, model
from cptlab.errors import UserError
from cptlab.pairs import token_masks
from cptlab.training import CPT
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.objectives import DPO, DPOP, NLL, ORPO, SVEN, SimPO
from cptlab.training.steps import batches
from cptlab.training.steps.batches import ReferenceRows, collate
from cptlab.training.steps.compute import Compute
from cptlab.training.steps.fast import FastOutputs
from cptlab.training.steps.packing import pack, packed_length, predicting_places, token_budget_groups
from cptlab.training.steps.step_method import StepMethod, choose_step
from cptlab.training.steps.token_pairs import encode_pair

SWITCHES = [
    {"reduction": r, "kl_direction": d} for r in ("sum", "mean") for d in ("policy_reference", "reference_policy")
]
OBJECTIVES = [
    *(CPT(**switch) for switch in SWITCHES), CPT(w_hinge=2.0), CPT(w_lm=0.0), CPT(w_rank=0.0), CPT(w_kl=0.0),
    *(SVEN(**switch) for switch in SWITCHES), NLL(), NLL(reduction="mean"), DPO(), DPO(over="differences"),
    DPOP(), DPOP(over="differences"), SimPO(), ORPO(),
]  # fmt: skip


@pytest.mark.parametrize("arch", [*ARCHITECTURES, *(f"sliding {name}" for name in SLIDING)])
def test_on_every_architecture(arch):
    name = arch.removeprefix("sliding ")
    backbone = double(name, **(SLIDING[name] if arch != name else {}))
    with exact_norms(backbone):
        plain, fast = (step_of(backbone, CPT(), pairs(), method) for method in ("plain", "fast"))
        assert_agree(plain, fast, 1e-6 if name in FLOAT32 else 1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])
def test_with_every_objective(arch, objective):
    backbone = double(arch)
    with exact_norms(backbone):
        plain, fast = (step_of(backbone, objective, pairs(), method) for method in ("plain", "fast"))
        assert_agree(plain, fast, 1e-8)


@pytest.mark.parametrize("stage", ["comparative", "nll"])
@pytest.mark.parametrize("seed", range(4))
def test_batches_of_a_step_add_up(stage, seed):
    """One batch with the plain step, and any division into batches with the fast one."""
    backbone, examples = double("qwen2"), pairs(seed)
    order = random.Random(seed).sample(range(len(examples)), len(examples))
    cut = sorted(random.Random(seed).sample(range(1, len(order)), seed))
    groups = [order[a:b] for a, b in zip([0, *cut], [*cut, len(order)], strict=True)]
    with exact_norms(backbone):
        (plain, gradients), (fast, found) = (
            step_of(backbone, CPT(), examples, method, stage, parts)
            for method, parts in (("plain", None), ("fast", groups))
        )
    assert plain["step"].keys() == fast["step"].keys() >= {"loss", "l_nll" if stage == "nll" else "l_rank"}
    for name, value in plain["step"].items():
        assert float(fast["step"][name]) == pytest.approx(float(value), rel=1e-8)
    for gradient, other in zip(gradients, found, strict=True):
        assert (other - gradient).norm() <= 1e-8 * gradient.norm()


@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (7 * VOCAB, 3 * VOCAB), (1 << 23, 1 << 18), (1 << 23, 2 * VOCAB)])
def test_chunks_change_nothing(chunk, block, monkeypatch):
    backbone = double("phi")  # its head has a bias
    nn.init.normal_(backbone.head.bias)
    plain = step_of(backbone, CPT(), pairs(), "plain")
    monkeypatch.setattr("cptlab.training.steps.head.CHUNK", chunk)
    monkeypatch.setattr("cptlab.training.steps.head.CACHED", block)
    assert_agree(plain, step_of(backbone, CPT(), pairs(), "fast"), 1e-8)


def test_a_longer_prefix_and_checkpointing():
    backbone, examples = double("llama_gqa"), pairs()
    gradients = []
    for method in (StepMethod("plain"), StepMethod("fast"), StepMethod("fast", checkpointing=True)):
        prefix = prefixes_of(backbone, CPT(), length=40)[0]
        module = AdapterTraining(backbone, prefix, method=method)
        loss = module.training_step([collate(examples, 257)], 0)
        gradients.append(torch.autograd.grad(loss, module.trained())[0])
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()
    torch.testing.assert_close(gradients[1], gradients[2], rtol=1e-12, atol=0)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_compiled_layers(monkeypatch, fresh_compiler):
    """Traced by torch's compiler but run as they are (its default backend takes a minute)."""
    plain = step_of(double("gpt2"), CPT(), pairs(), "plain")
    backbone = double("gpt2")
    compile_layer = nn.Module.compile
    calls = []
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **k: calls.append(k) or compile_layer(self, backend="eager", **k)
    )
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    method = choose_step(backbone, compute=Compute(compile=True))
    assert method == StepMethod("fast", compiled=2)
    assert calls == [{"dynamic": True}] * 2
    assert_agree(plain, step_of(backbone, CPT(), pairs(), method), 1e-8)
    assert limits == (torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
def test_compiled_layers_of_another_adapter(monkeypatch, fresh_compiler):
    compile_layer = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **k: compile_layer(self, backend="eager", **k))
    losses = []
    for compiled in (False, True):
        backbone = double("gpt2")
        adapter = LoRA(backbone, r=4)
        method = choose_step(backbone, Compute(compile=compiled), [adapter])
        assert method.name == "plain" and method.compiled == (4 if compiled else 0)
        losses.append(
            AdapterTraining(backbone, adapter, method=method).training_step([collate(pairs(), 257)], 0).item()
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_layers_that_cannot_be_compiled(monkeypatch, fresh_compiler):
    def fails(graph, inputs):
        raise RuntimeError("no compiler")

    compile_layer = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **k: compile_layer(self, backend=fails, **k))
    with pytest.raises(UserError, match="cannot be compiled here .* Set compute.compile=false"):
        choose_step(tiny_backbone("llama"), compute=Compute(compile=True))


def test_what_is_kept_of_the_reference_is_used():
    """With stored rows the backbone alone is not run, and other rows give other divergences."""
    backbone, examples = double("llama_gqa"), pairs()
    batch = collate(examples, 257)
    prefix = prefixes_of(backbone, CPT())[0]
    own = FastOutputs(backbone, batch, [prefix.policy(backbone)])
    rows = ReferenceRows(own._reference, own.reference_scores(batch.code))
    calls = []
    hidden = backbone.hidden_states
    backbone.hidden_states = lambda *args: calls.append(args[-1]) or hidden(*args)
    stored = FastOutputs(backbone, collate(examples, 257, rows), [prefix.policy(backbone)])
    for direction in ("policy_reference", "reference_policy"):
        torch.testing.assert_close(
            stored.kl(batch.code, direction), own.kl(batch.code, direction), rtol=1e-12, atol=1e-12
        )
    torch.testing.assert_close(stored.reference_scores(batch.mask), own.reference_scores(batch.mask), rtol=0, atol=0)
    assert calls == [prefix, prefix]
    other = ReferenceRows(rows.states.flip(0), rows.scores)
    other_outputs = FastOutputs(backbone, collate(examples, 257, other), [prefix.policy(backbone)])
    moved = other_outputs.kl(batch.code, "policy_reference")
    assert (moved - own.kl(batch.code, "policy_reference")).abs().max() > 1e-3


def test_packed_rows_hold_what_is_shared_once():
    for found in pairs():
        common, rests = found.common, [len(side[0]) - found.common for side in (found.better, found.worse)]
        branches = sum(max(rest - 1, 0) for rest in rests)
        last = 0 if any(rests) else min(1, common)  # the last token of equal programs predicts nothing
        assert packed_length(found) == len(found.instruction) + common - last + branches
        packed = pack([found], 257)
        assert packed.input_ids.shape == (1, packed_length(found))
        assert len(packed.predicting) == predicting_places(found)


def test_packed_places_predict_their_tokens():
    """Following a token's place backwards through what it sees gives the program up to it."""
    examples = pairs()
    packed, batch = pack(examples, 257), collate(examples, 257)
    width = packed.input_ids.shape[1]
    for row in range(len(batch.tokens)):
        pair = row % len(examples)
        program = (examples[pair].better if row < len(examples) else examples[pair].worse)[0]
        for t in range(len(program)):
            place = packed.source[row, t].item() - pair * width
            segment, position = packed.segments[pair], packed.positions[pair]
            seen = (position <= position[place]) & ((segment == 0) | (segment == segment[place])) & (segment >= 0)
            if segment[place] == 0:
                seen &= segment == 0
            order = position[seen].argsort()
            assert packed.input_ids[pair][seen][order].tolist() == examples[pair].instruction + program[:t]
            assert packed.predicting[packed.state[row, t]] == packed.source[row, t]


def test_groups_keep_to_the_budget():
    lengths = [random.Random(i).randint(1, 90) for i in range(50)]
    groups = token_budget_groups(lengths, 100)
    assert sorted(sum(groups, [])) == list(range(50))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 100
    assert len(groups) < 50 and token_budget_groups(lengths, 1) == [
        [i] for g in token_budget_groups(lengths, 1) for i in g
    ]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_fast_step_is_taken_on_every_architecture(arch):
    for dtype in (torch.float32, torch.bfloat16):
        backbone = tiny_backbone(arch)
        backbone.model.to(dtype)
        assert choose_step(backbone) == StepMethod("fast")


@pytest.mark.parametrize("error", [AttributeError, NameError, TypeError, KeyError, RuntimeError, IndexError])
@pytest.mark.parametrize("place", ["FastOutputs.kl", "FastOutputs._run", "pack", "additive_mask"])
def test_a_mistake_in_the_fast_step_ends_the_run(error, place, monkeypatch):
    """It is no reason to fall back to the plain one."""
    owners = {"pack": batches, "additive_mask": model}
    owner = owners.get(place, FastOutputs)
    broken = {"__name__": getattr(owner, "__module__", owner.__name__), "error": error}
    exec("def broken(*_, **__): raise error('a typo')", broken)
    monkeypatch.setattr(owner, place.rpartition(".")[2], broken["broken"])
    with pytest.raises(error, match="a typo"):
        choose_step(tiny_backbone("llama"))


def test_an_architecture_that_refuses_packed_rows_falls_back():
    backbone = tiny_backbone("llama")
    forward = backbone.model.base_model.forward

    def refuses(*args, attention_mask=None, **kwargs):
        if attention_mask is not None and not torch.is_inference_mode_enabled():
            return torch.nn.functional.linear(attention_mask, torch.zeros(1, 1))  # raised in torch
        return forward(*args, attention_mask=attention_mask, **kwargs)

    backbone.model.base_model.forward = refuses
    method = choose_step(backbone)
    assert method.name == "plain" and "cannot run it (RuntimeError" in method.reason


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_other_adapters_take_the_plain_step(kind):
    backbone = tiny_backbone("llama")
    method = choose_step(backbone, adapters=[make_adapter(kind, backbone)])
    assert method == StepMethod("plain", "the fast one trains a prefix only")


def test_the_plain_step_is_taken_when_asked_for():
    assert choose_step(tiny_backbone("llama"), Compute(step="plain")) == StepMethod("plain")


class Scaled(nn.Linear):
    def forward(self, hidden):
        return 1.01 * super().forward(hidden)


def test_an_architecture_that_differs_falls_back():
    """Logits that are not the head of the last hidden states, as in models that scale or cap them."""
    backbone = tiny_backbone("llama")
    backbone.head.__class__ = Scaled
    method = choose_step(backbone)
    assert method.name == "plain" and "not its head's alone" in method.reason
    assert method.facts() == {"step": "plain", "step_reason": method.reason}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("granite", {"logits_scaling": 1.05}),
        ("gemma2", {"final_logit_softcapping": 30.0}),
        ("cohere", {"logit_scale": 0.9}),
    ],
)
def test_models_that_change_their_logits_fall_back_in_any_precision(kind, options, dtype):
    config = AutoConfig.for_model(kind, vocab_size=VOCAB, num_hidden_layers=2, hidden_size=32, intermediate_size=48,
                                  num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=0, **options)  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    method = choose_step(Backbone(model, tiny_tokenizer(), kind))
    assert method.name == "plain" and next(iter(options)) in method.reason


def test_an_architecture_that_cannot_branch_falls_back():
    backbone = tiny_backbone("llama")
    forward = backbone.model.base_model.forward

    def causal(*args, attention_mask=None, **kwargs):
        return forward(*args, attention_mask=None, **kwargs)

    backbone.model.base_model.forward = causal
    assert choose_step(backbone).name == "plain"


def test_real_pairs_of_the_embedded_model():
    """kata-lm in float64 on pairs of text, end-of-text tokens included."""
    backbone = load_backbone("kata-lm")
    backbone.model.double()
    examples = []
    for pair in make_pairs()[:4]:
        masks = token_masks(*(backbone.encode_completion(text) for text in (pair.better, pair.worse)))
        examples.append(encode_pair(replace(pair, better_mask=masks[0], worse_mask=masks[1]), backbone, True))
    with exact_norms(backbone):
        assert_agree(*(step_of(backbone, CPT(), examples, method) for method in ("plain", "fast")), 1e-8)
