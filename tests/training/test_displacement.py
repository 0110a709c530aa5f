"""The diagnostics of a split against plain Python loops over tokens and vocabulary, in float64."""

import math

import pytest
from fake_outputs import FakeOutputs, fake_outputs

from cptlab.training.loop.displacement import displacement_metrics, displacement_sums
from cptlab.training.objectives import CPT, ORPO, SVEN


def loop_log_softmax(row):
    top = max(row)
    total = math.fsum(math.exp(x - top) for x in row)
    return [x - top - math.log(total) for x in row]


def loop_program(outputs, row):
    """(log-probabilities, the backbone's, KL(policy || backbone), mask) of the code tokens of one program."""
    scores, before, divergences = [], [], []
    policy, backbone, tokens = (x[row].tolist() for x in (outputs.policies[0], outputs.backbone, outputs.tokens))
    for t in range(outputs.lengths[row]):
        p, q = loop_log_softmax(policy[t]), loop_log_softmax(backbone[t])
        scores.append(p[tokens[t]])
        before.append(q[tokens[t]])
        divergences.append(math.fsum(math.exp(x) * (x - y) for x, y in zip(p, q, strict=True)))
    return scores, before, divergences, outputs.mask[row, : outputs.lengths[row]].tolist()


def part(outputs, pairs):
    rows = pairs + [pair + len(outputs.lengths) // 2 for pair in pairs]
    tensors = (x[rows] for x in (outputs.backbone, outputs.tokens, outputs.mask, outputs.code))
    return FakeOutputs([p[rows] for p in outputs.policies], *tensors, lengths=[outputs.lengths[r] for r in rows])


@pytest.mark.parametrize("objective", [CPT(), CPT(w_hinge=2.0), SVEN(), ORPO()], ids=lambda o: type(o).__name__)
def test_displacement_equals_loops(objective):
    outputs = fake_outputs(pairs=4, seed=3, empty_rows=(0, 4, 5))
    halves = []  # two batches of two pairs: sums may be added
    for pairs in ([0, 1], [2, 3]):
        batch = part(outputs, pairs)
        halves.append(displacement_sums(batch, objective.terms(batch), objective))
    metrics = displacement_metrics({name: halves[0][name] + halves[1][name] for name in halves[0]})

    s, s0, kl_in, kl_out, masked = [], [], [], [], []
    for row in range(8):
        scores, before, divergences, mask = loop_program(outputs, row)
        s.append(math.fsum(x for x, m in zip(scores, mask, strict=True) if m))
        s0.append(math.fsum(x for x, m in zip(before, mask, strict=True) if m))
        kl_in += [d for d, m in zip(divergences, mask, strict=True) if m]
        kl_out += [d for d, m in zip(divergences, mask, strict=True) if not m]
        masked.append(sum(mask))
    delta_a = [s[i] - s0[i] for i in range(4)]
    delta_b = [s[i + 4] - s0[i + 4] for i in range(4)]
    expected = {
        "delta_a": sum(delta_a) / 4,
        "delta_b": sum(delta_b) / 4,
        "delta_a_per_token": sum(delta_a) / sum(masked[:4]),
        "delta_b_per_token": sum(delta_b) / sum(masked[4:]),
        "fell_a": sum(d < 0 for d in delta_a) / 4,
        "accuracy": sum(s[i] > s[i + 4] for i in range(4)) / 4,
        "margin": sum(s[i] - s[i + 4] for i in range(4)) / 4,
        "reference_accuracy": sum(s0[i] > s0[i + 4] for i in range(4)) / 4,
        "reference_margin": sum(s0[i] - s0[i + 4] for i in range(4)) / 4,
        "kl_masked": sum(kl_in) / len(kl_in),
        "kl_unmasked": sum(kl_out) / len(kl_out),
        "empty_mask_a": 0.25,
        "empty_mask_b": 0.5,
        "empty_mask": 0.5,
    }
    whole = objective.terms(outputs)  # checked in test_objectives.py
    expected |= {name: term.mean().item() for name, term in whole.items()}
    expected["loss"] = sum(term.mean().item() for term in objective.weighted(whole).values())
    assert metrics == pytest.approx(expected, rel=1e-10)
