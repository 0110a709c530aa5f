"""Losses against plain Python loops over tokens and vocabulary, in float64, written from the printed equations."""

import math

import pytest
import torch

from cptlab.errors import UserError
from cptlab.training import Objective, losses
from cptlab.training.diagnostics import displacement_metrics, displacement_sums, gradient_norms

V = 11


def loop_log_softmax(row):
    top = max(row)
    total = math.fsum(math.exp(x - top) for x in row)
    return [x - top - math.log(total) for x in row]


def loop_kl(of, to):
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(of, to, strict=True))


def loop_program(policy, reference, tokens, mask, length, direction):
    """(token log-probabilities, reference's, KL per position) of one program's code tokens."""
    scores, before, divergences = [], [], []
    for t in range(length):
        p, q = loop_log_softmax(policy[t]), loop_log_softmax(reference[t])
        scores.append(p[tokens[t]])
        before.append(q[tokens[t]])
        divergences.append(loop_kl(p, q) if direction == "policy_reference" else loop_kl(q, p))
    return scores, before, divergences


def loop_terms(case, pair, reduction, direction):
    """L_rank, L_LM, L_KL of one pair (eq. 8, 10, 11), with SVEN's means where asked."""
    half = len(case["tokens"]) // 2
    chosen = {}
    for side, row in (("a", pair), ("b", pair + half)):
        args = [case[name][row].tolist() for name in ("policy", "reference", "tokens", "mask")]
        scores, _, divergences = loop_program(*args, case["lengths"][row], direction)
        mask = args[3][: case["lengths"][row]]
        chosen[side] = (
            [s for s, m in zip(scores, mask, strict=True) if m],
            [d for d, m in zip(divergences, mask, strict=True) if not m],
        )

    def reduced(values):
        total = math.fsum(values)
        return total / len(values) if reduction == "mean" and values else total

    margin = math.fsum(chosen["a"][0]) - math.fsum(chosen["b"][0])
    return {
        "l_rank": -math.log(1 / (1 + math.exp(-margin))),
        "l_lm": -reduced(chosen["a"][0]),
        "l_kl": reduced(chosen["a"][1]) + reduced(chosen["b"][1]),
    }


def make_case(pairs=3, width=9, seed=0, empty_rows=()):
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * pairs
    lengths = [int(torch.randint(3, width + 1, (), generator=generator)) for _ in range(rows)]
    code = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    mask = (torch.rand(rows, width, generator=generator) < 0.4) & code
    for row in empty_rows:
        mask[row] = False
    return {
        "policy": 2 * torch.randn(rows, width, V, generator=generator, dtype=torch.float64),
        "reference": 2 * torch.randn(rows, width, V, generator=generator, dtype=torch.float64),
        "tokens": torch.randint(0, V, (rows, width), generator=generator),
        "mask": mask,
        "code": code,
        "lengths": lengths,
    }


def computed_terms(case, objective, policy=None):
    policy = losses.log_probs(case["policy"] if policy is None else policy)
    reference = losses.log_probs(case["reference"])
    return objective.comparative_terms(policy, reference, case["tokens"], case["mask"], case["code"])


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
@pytest.mark.parametrize("direction", losses.KL_DIRECTIONS)
@pytest.mark.parametrize("empty_rows", [(), (0,), (3,), (0, 3), tuple(range(6))])
def test_terms_equal_loops(reduction, direction, empty_rows):
    case = make_case(empty_rows=empty_rows)
    terms = computed_terms(case, Objective(reduction=reduction, kl_direction=direction))
    for pair in range(3):
        for name, expected in loop_terms(case, pair, reduction, direction).items():
            assert terms[name][pair].item() == pytest.approx(expected, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
def test_nll_equals_loop(reduction):
    case = make_case(seed=1)
    terms = Objective(reduction=reduction).nll_terms(losses.log_probs(case["policy"]), case["tokens"], case["code"])
    for row, length in enumerate(case["lengths"]):
        policy, tokens = case["policy"][row].tolist(), case["tokens"][row].tolist()
        expected = -math.fsum(loop_log_softmax(policy[t])[tokens[t]] for t in range(length))
        expected /= length if reduction == "mean" else 1
        assert terms["l_nll"][row].item() == pytest.approx(expected, rel=1e-12)


def test_weights_enter_as_printed():
    case = make_case()
    objective = Objective(w_lm=0.5, w_rank=3.0, w_kl=0.25)
    terms, weighted = computed_terms(case, objective), objective.weighted(computed_terms(case, objective))
    expected = 0.5 * terms["l_lm"] + 3.0 * terms["l_rank"] + 0.25 * terms["l_kl"]
    torch.testing.assert_close(sum(weighted.values()), expected, rtol=1e-14, atol=0)
    assert (Objective().w_lm, Objective().w_rank, Objective().w_kl) == (1.0, 4.0, 1.6)


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
@pytest.mark.parametrize("empty_rows", [(0,), (1,), (0, 1)])
def test_empty_masks_give_finite_losses_and_gradients(reduction, empty_rows):
    case = make_case(pairs=1, empty_rows=empty_rows)
    logits = case["policy"].clone().requires_grad_()
    terms = computed_terms(case, Objective(reduction=reduction), logits)
    sum(Objective().weighted(terms).values()).sum().backward()
    assert all(torch.isfinite(term).all() for term in terms.values())
    assert torch.isfinite(logits.grad).all()
    if empty_rows == (0, 1):
        assert terms["l_rank"].item() == pytest.approx(math.log(2)) and terms["l_lm"].item() == 0


def test_fully_masked_programs_have_no_kl():
    case = make_case(pairs=1)
    case["mask"] = case["code"].clone()
    for reduction in losses.REDUCTIONS:
        assert computed_terms(case, Objective(reduction=reduction))["l_kl"].item() == 0


def test_padding_does_not_matter():
    case = make_case(pairs=2)
    other = {name: value.clone() if torch.is_tensor(value) else value for name, value in case.items()}
    for name in ("policy", "reference"):
        other[name][~case["code"]] = 1e6
    other["tokens"][~case["code"]] = 0
    for name, term in computed_terms(case, Objective()).items():
        torch.testing.assert_close(term, computed_terms(other, Objective())[name], rtol=0, atol=0)


def test_rank_loss_far_out():
    far = torch.tensor([-1e4, 0.0, 1e4])
    loss = losses.rank_loss(far, torch.zeros(3))
    torch.testing.assert_close(loss, torch.tensor([1e4, math.log(2), 0.0]))


def test_losses_of_half_precision_logits_are_float32():
    assert losses.log_probs(torch.zeros(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_kl_gradients():
    """dKL(ref||p)/dz = p - q and dKL(p||ref)/dz = p * (log p - log q - KL), the closed forms."""
    case = make_case(pairs=1)
    q = losses.log_probs(case["reference"])
    for direction in losses.KL_DIRECTIONS:
        logits = case["policy"].clone().requires_grad_()
        p = losses.log_probs(logits)
        divergence = losses.position_kl(p, q, direction)
        divergence.sum().backward()
        p = p.detach()
        if direction == "reference_policy":
            expected = p.exp() - q.exp()
        else:
            expected = p.exp() * (p - q - divergence.detach()[..., None])
        torch.testing.assert_close(logits.grad, expected, rtol=1e-9, atol=1e-12)


def test_displacement_equals_loops():
    case = make_case(pairs=4, seed=3, empty_rows=(0, 4, 5))
    objective = Objective()
    policy, reference = losses.log_probs(case["policy"]), losses.log_probs(case["reference"])
    halves = []  # two batches of two pairs: sums may be added
    for pairs in ([0, 1], [2, 3]):
        rows = pairs + [p + 4 for p in pairs]
        arguments = [x[rows] for x in (policy, reference, case["tokens"], case["mask"], case["code"])]
        halves.append(displacement_sums(*arguments, objective))
    metrics = displacement_metrics({name: halves[0][name] + halves[1][name] for name in halves[0]})

    s, s0, kl_in, kl_out, masked = [], [], [], [], []
    for row in range(8):
        args = [case[name][row].tolist() for name in ("policy", "reference", "tokens", "mask")]
        scores, before, divergences = loop_program(*args, case["lengths"][row], "policy_reference")
        mask = args[3][: case["lengths"][row]]
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
    terms = [loop_terms(case, pair, "sum", "policy_reference") for pair in range(4)]
    expected |= {name: sum(term[name] for term in terms) / 4 for name in terms[0]}
    expected["loss"] = expected["l_lm"] + 4 * expected["l_rank"] + 1.6 * expected["l_kl"]
    assert metrics == pytest.approx(expected, rel=1e-10)


def test_gradient_norms_add_up():
    case = make_case(pairs=2)
    logits = case["policy"].clone().requires_grad_()
    weighted = Objective().weighted(computed_terms(case, Objective(), logits))
    norms = gradient_norms(weighted, [logits])
    for name, term in weighted.items():
        (gradient,) = torch.autograd.grad(term.mean(), logits, retain_graph=True)
        assert norms[name] == pytest.approx(gradient.norm().item())


@pytest.mark.parametrize("switch", [{"reduction": "median"}, {"kl_direction": "both"}])
def test_unknown_switch(switch):
    with pytest.raises(UserError, match="Choose one of"):
        Objective(**switch)
