"""The whole step by sequences, forward and loss, is one graph, and batches of one planned size share it."""

import random

import pytest
import torch
from step_agreement import example, prefixes_of
from tiny_models import double

from cptlab.backbone.gradient_checkpointing import decoder_layers
from cptlab.backbone.sequence_attention import by_sequences
from cptlab.training import CPT, AdapterTraining, Compute, StepMethod, choose_step
from cptlab.training.steps import step_method
from cptlab.training.steps.batches import collate
from cptlab.training.steps.fast import FastOutputs


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # other tests compile, too
    yield
    torch._dynamo.reset()


def prepared(backbone, shapes, seed):
    """A batch of planned sizes, laid out, with its reference, as the data module gives it to a step."""
    draw = random.Random(seed)
    batch = collate([example(draw, *shape) for shape in shapes], 257, planned=True)
    rows = FastOutputs(backbone, collate(batch.pairs, 257), []).reference_rows()
    width = batch.tokens.shape[1] - rows.scores.shape[1]
    batch.one_row, batch.kept  # noqa: B018
    kept = batch.with_reference(type(rows)(rows.states, torch.nn.functional.pad(rows.scores, (0, width))))
    kept.kept  # noqa: B018
    return kept


def test_the_step_is_one_graph_for_batches_of_a_planned_size(fresh_compiler):
    backbone, objective = double("llama_gqa", num_hidden_layers=1), CPT()
    prefix = prefixes_of(backbone, objective)[0]

    def loss_of(batch):
        outputs = FastOutputs(backbone, batch, [prefix.policy(backbone)], by_sequences=True)
        return torch.stack(list(objective.weighted(objective.terms(outputs)).values())).sum()

    compiled = torch.compile(loss_of, fullgraph=True, backend="eager")
    batches = [prepared(backbone, shapes, seed) for seed, shapes in enumerate([[(20, 7, 9, 12)], [(17, 6, 11, 13)]])]
    assert batches[0].one_row.sequences.lengths[:3] != batches[1].one_row.sequences.lengths[:3]
    with by_sequences(backbone.model), torch._dynamo.config.patch(error_on_recompile=True):
        for batch in batches:
            results = []
            for function in (loss_of, compiled):
                loss = function(batch)
                results.append([loss.detach(), *torch.autograd.grad(loss, list(prefix.parameters()))])
            for wanted, found in zip(*results, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_layers_are_compiled_for_attention_by_sequences_too(fresh_compiler, monkeypatch):
    """The trial of it would be the first beyond torch's limit of versions, after which torch makes none any more."""
    compile_layer, graphs, trial = torch.nn.Module.compile, [], step_method._why_with_mask
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **k: compile_layer(self, backend="eager", **k))
    monkeypatch.setattr(step_method, "_mask_costs_little", lambda device: False)
    monkeypatch.setattr(step_method, "why_no_kernel", lambda backbone, device: None)

    def counted(backbone):
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return trial(backbone)

    monkeypatch.setattr(step_method, "_why_with_mask", counted)
    with torch._dynamo.config.patch(recompile_limit=3):
        method = choose_step(double("llama_gqa"), Compute(compile=True))
    assert method == StepMethod("fast", by_sequences=True, compiled=2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs[0] > 0


@pytest.mark.slow
def test_compiled_layers_take_rows_of_any_size(fresh_compiler):
    """As `compute.compile=true` compiles them: no version of a layer is made for a size, and no graph breaks."""
    backbone = double("llama_gqa")
    for layer in decoder_layers(backbone.model):
        layer.compile(dynamic=True, backend="eager")
    module = AdapterTraining(
        backbone, prefixes_of(backbone, CPT())[0], method=StepMethod("fast", by_sequences=True, compiled=2)
    )
    graphs = []
    for seed in range(4):
        draw = random.Random(seed)
        shapes = [(draw.randrange(5, 60), 7, draw.randrange(3, 20), 12) for _ in range(1 + seed)]
        batch = collate([example(draw, *shape) for shape in shapes], 257, planned=True)
        module.training_step([batch], 0).backward()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(set(graphs)) == 1 and not torch._dynamo.utils.counters["graph_break"]
