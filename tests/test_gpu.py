"""A GPU gives what the CPU gives, in float32: logits behind a prefix, greedy decoding, a training step."""

import pytest
import torch
from tiny_models import pad, random_prefix, tiny_backbone, tokens
from training_runs import make_pairs

from cptlab.decoding import Sampling, generate
from cptlab.records import Prompt
from cptlab.training import CPT, AdapterTraining, StepMethod
from cptlab.training.steps.batches import collate
from cptlab.training.steps.token_pairs import encode_pair

pytestmark = pytest.mark.gpu
DEVICES = ("cpu", "cuda")
TOLERANCE = 1e-4


def backbone_and_prefix(device):
    backbone = tiny_backbone("llama_gqa")
    prefix = random_prefix(backbone)
    backbone.model.to(device)
    return backbone, prefix.to(device)


def test_logits_behind_a_prefix():
    ids, mask = pad(tokens(30, 17), "left")
    found = []
    for device in DEVICES:
        backbone, prefix = backbone_and_prefix(device)
        with torch.no_grad():
            found.append(backbone.logits(ids.to(device), mask.to(device), prefix).cpu()[mask.bool()])
    assert found[0].abs().max() > 1
    torch.testing.assert_close(found[1], found[0], atol=TOLERANCE, rtol=TOLERANCE)


def test_greedy_decoding():
    texts = ("def add(a, b):", "x", "Sort the list of numbers.\ndef order(items):\n")
    prompts = [(f"task/{i}", Prompt(text)) for i, text in enumerate(texts)]
    found = []
    for device in DEVICES:
        backbone, prefix = backbone_and_prefix(device)
        rows = generate(backbone, prompts, 1, Sampling(temperature=0, max_new_tokens=24), prefix=prefix)
        found.append([completion.raw for (completion,) in rows])
    assert found[0] == found[1] and len(set(found[0])) == len(texts)


@pytest.mark.parametrize("name", ["fast", "plain"])
def test_a_training_step(name):
    found = []
    for device in DEVICES:
        backbone, prefix = backbone_and_prefix(device)
        module = AdapterTraining(backbone, prefix, "comparative", CPT(), method=StepMethod(name)).to(device)
        pairs = [encode_pair(pair, backbone, True) for pair in make_pairs()[:3]]
        loss = module.training_step([collate(pairs, backbone.pad_id).to(backbone.device)], 0)
        (gradient,) = torch.autograd.grad(loss, [prefix.table])
        found.append((loss.detach().cpu(), gradient.cpu()))
    (loss, gradient), (loss_there, gradient_there) = found
    torch.testing.assert_close(loss_there, loss, atol=TOLERANCE, rtol=TOLERANCE)
    assert gradient.norm() > 0
    assert (gradient_there - gradient).norm() <= TOLERANCE * gradient.norm()
