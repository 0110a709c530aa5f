"""Every objective against a loop over tokens, written from the papers in probabilities, in float64, with gradients."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from fake_outputs import FakeOutputs, fake_outputs
from run_commands import ROOT, config

from cptlab.errors import UserError
from cptlab.settings.instantiate import instantiate
from cptlab.settings.validation import validate
from cptlab.training.objectives import CPT, DPO, DPOP, NLL, ORPO, SVEN, Objective, SimPO, losses
from cptlab.training.steps.compute import Compute

DEFAULTS = [CPT(), CPT(w_hinge=4.0), NLL(), SVEN(), DPO(), DPOP(), SimPO(), ORPO()]
EMPTY = [(), (0,), (3,), (0, 3), tuple(range(6))]
CONFIGS = {
    "cpt": CPT(),
    "cpt_hinge": CPT(w_hinge=4.0),
    "nll": NLL(),
    "single_prefix": NLL(),
    "sven": SVEN(),
    "dpo": DPO(),
    "dpop": DPOP(),
    "simpo": SimPO(),
    "orpo": ORPO(),
}


def switched(*objectives):
    """Each objective under every choice of its switches."""
    choices = {"reduction": losses.REDUCTIONS, "kl_direction": losses.KL_DIRECTIONS, "over": ("code", "differences")}
    found = list(objectives)
    for name, values in choices.items():
        found = [replace(o, **{name: v}) if hasattr(o, name) else o for o in found for v in values]
    return list(dict.fromkeys(found))


def name_of(value):
    shown = ("reduction", "kl_direction", "over", "w_hinge")
    return "-".join([type(value).__name__, *(str(v) for k, v in asdict(value).items() if k in shown)])


# --- the papers, one token at a time, in probabilities ---


class Program:
    """Row `row` of a outputs, as lists over its code tokens of probabilities, each a 0-dimensional tensor."""

    def __init__(self, outputs, row):
        length = outputs.lengths[row]
        self.tokens = outputs.tokens[row, :length].tolist()
        self.marked = outputs.mask[row, :length].tolist()
        self.policies = [[policy[row, t].softmax(0) for t in range(length)] for policy in outputs.policies]
        self.backbone = [outputs.backbone[row, t].softmax(0) for t in range(length)]

    def probabilities(self, distributions, marked_only):
        picked = []
        for t, token in enumerate(self.tokens):
            if self.marked[t] or not marked_only:
                picked.append(distributions[t][token])
        return picked

    def log_probability(self, distributions, marked_only=False):
        total = torch.zeros((), dtype=torch.float64)
        for p in self.probabilities(distributions, marked_only):
            total = total + torch.log(p)
        return total

    def divergences(self, policy, direction):
        """KL at every code token that is not marked."""
        found = []
        for t, marked in enumerate(self.marked):
            if not marked:
                p, q = self.policies[policy][t], self.backbone[t]
                if direction == "reference_policy":
                    p, q = q, p
                found.append(sum(p[v] * torch.log(p[v] / q[v]) for v in range(len(p))))
        return found


def reduced(values, reduction):
    if not values:
        return torch.zeros((), dtype=torch.float64)
    return sum(values) / (len(values) if reduction == "mean" else 1)


def minus_log_sigmoid(x):
    return -torch.log(1 / (1 + torch.exp(-x)))


def paper_cpt(o, a, b):
    s_a, s_b = (x.log_probability(x.policies[0], marked_only=True) for x in (a, b))
    terms = {
        "l_rank": minus_log_sigmoid(s_a - s_b),
        "l_lm": reduced([-torch.log(p) for p in a.probabilities(a.policies[0], True)], o.reduction),
        "l_kl": reduced(a.divergences(0, o.kl_direction), o.reduction)
        + reduced(b.divergences(0, o.kl_direction), o.reduction),
    }
    loss = o.w_lm * terms["l_lm"] + o.w_rank * terms["l_rank"] + o.w_kl * terms["l_kl"]
    if o.w_hinge > 0:
        fall = a.log_probability(a.backbone, marked_only=True) - s_a
        terms["l_hinge"] = fall if fall > 0 else 0 * fall
        loss = loss + o.w_hinge * terms["l_hinge"]
    return terms, loss


def paper_nll(o, a, b):
    terms = {"l_nll": reduced([-torch.log(p) for p in a.probabilities(a.policies[0], False)], o.reduction)}
    return terms, terms["l_nll"]


def paper_sven(o, a, b):
    """sven/trainer.py, PrefixTrainer.step, twice: for x_a with control 0 and for x_b with control 1."""
    samples = []
    for program, control in ((a, 0), (b, 1)):
        own = program.probabilities(program.policies[control], True)
        other = program.probabilities(program.policies[1 - control], True)
        samples.append(
            {
                "l_lm": reduced([-torch.log(p) for p in own], o.reduction),
                "l_contrast": reduced([-torch.log(p / (p + q)) for p, q in zip(own, other, strict=True)], o.reduction),
                "l_kl": reduced(program.divergences(control, o.kl_direction), o.reduction)
                + reduced(program.divergences(1 - control, o.kl_direction), o.reduction),
            }
        )
    loss = sum(o.w_lm * s["l_lm"] + o.w_contrast * s["l_contrast"] + o.w_kl * s["l_kl"] for s in samples) / 2
    return {name: (samples[0][name] + samples[1][name]) / 2 for name in samples[0]}, loss


def log_ratio(program, over):
    only = over == "differences"
    return program.log_probability(program.policies[0], only) - program.log_probability(program.backbone, only)


def paper_dpo(o, a, b):
    loss = minus_log_sigmoid(o.beta * log_ratio(a, o.over) - o.beta * log_ratio(b, o.over))
    return {"l_dpo": loss}, loss


def paper_dpop(o, a, b):
    ratio = log_ratio(a, o.over)
    penalty = -o.penalty * ratio if ratio < 0 else 0 * ratio
    exponent = o.beta * (ratio - log_ratio(b, o.over) - penalty)
    # log(1 + exp(-x)) in two branches: the penalty is large
    loss = torch.log1p(torch.exp(-exponent)) if exponent > 0 else torch.log1p(torch.exp(exponent)) - exponent
    return {"l_dpop": loss}, loss


def paper_simpo(o, a, b):
    mean_a, mean_b = (x.log_probability(x.policies[0]) / len(x.tokens) for x in (a, b))
    loss = minus_log_sigmoid(o.beta * mean_a - o.beta * mean_b - o.gamma)
    return {"l_simpo": loss}, loss


def paper_orpo(o, a, b):
    p_a, p_b = (torch.exp(x.log_probability(x.policies[0]) / len(x.tokens)) for x in (a, b))
    ratio = (p_a / (1 - p_a)) / (p_b / (1 - p_b))
    terms = {"l_nll": -torch.log(p_a), "l_odds": minus_log_sigmoid(torch.log(ratio))}
    return terms, terms["l_nll"] + o.w_odds * terms["l_odds"]


PAPERS = {
    CPT: paper_cpt,
    NLL: paper_nll,
    SVEN: paper_sven,
    DPO: paper_dpo,
    DPOP: paper_dpop,
    SimPO: paper_simpo,
    ORPO: paper_orpo,
}


def computed(objective, outputs):
    outputs.reference = objective.reference
    return objective.terms(outputs.better() if objective.better_only else outputs)


@pytest.mark.parametrize("empty_rows", EMPTY, ids=str)
@pytest.mark.parametrize("objective", switched(*DEFAULTS), ids=name_of)
def test_terms_and_gradients_are_the_papers(objective, empty_rows):
    outputs = fake_outputs(empty_rows=empty_rows, policies=objective.policies)
    terms = computed(objective, outputs)
    loss = sum(objective.weighted(terms).values())
    gradients = torch.autograd.grad(loss.mean(), outputs.policies)

    total = sum(0 * policy[outputs.code].sum() for policy in outputs.policies)  # so that nothing to learn gives zeros
    for pair in range(3):
        expected, weighted = PAPERS[type(objective)](objective, Program(outputs, pair), Program(outputs, pair + 3))
        assert list(terms) == list(expected)
        for name, value in expected.items():
            assert terms[name].shape == (3,)
            torch.testing.assert_close(terms[name][pair], value, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(loss[pair], weighted, rtol=1e-11, atol=1e-12)
        total = total + weighted / 3
    for mine, theirs in zip(gradients, torch.autograd.grad(total, outputs.policies), strict=True):
        torch.testing.assert_close(mine[outputs.code], theirs[outputs.code], rtol=1e-9, atol=1e-12)
        assert mine[~outputs.code].eq(0).all() and torch.isfinite(mine).all()


@pytest.mark.parametrize("objective", DEFAULTS, ids=name_of)
def test_every_term_enters_the_loss(objective):
    terms = computed(objective, fake_outputs())
    weighted = objective.weighted(terms)
    assert set(weighted) == set(terms) and set(objective.weights) - {"l_hinge"} <= set(terms)
    for name in terms:
        torch.testing.assert_close(weighted[name], objective.weights.get(name, 1.0) * terms[name], rtol=0, atol=0)
        assert weighted[name].abs().sum() > 0 or name == "l_hinge"


@pytest.mark.parametrize("objective", DEFAULTS, ids=name_of)
def test_what_an_objective_says_it_needs_of_the_backbone_is_what_it_asks(objective):
    needs = ["none", "scores", "states"]
    outputs = fake_outputs()
    computed(objective, outputs)  # the fake refuses to give more
    if objective.reference != "none":
        less = needs[needs.index(objective.reference) - 1]
        with pytest.raises(AssertionError):
            outputs.reference = less
            objective.terms(outputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-6, 1e2, 1e4])
@pytest.mark.parametrize("objective", switched(*DEFAULTS), ids=name_of)
def test_no_margin_is_too_large(objective, scale, dtype):
    outputs = fake_outputs(policies=objective.policies, scale=scale, dtype=dtype, empty_rows=(1, 4))
    loss = sum(objective.weighted(computed(objective, outputs)).values())
    assert torch.isfinite(loss).all()
    loss.mean().backward()
    assert all(torch.isfinite(policy.grad).all() for policy in outputs.policies)


@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("objective", DEFAULTS, ids=name_of)
def test_certain_programs_are_no_trouble(objective, sides):
    """Programs that the policy gives probability 1, whose odds are infinite."""
    outputs = fake_outputs(pairs=1, policies=objective.policies, dtype=torch.float32)
    with torch.no_grad():
        for policy in outputs.policies:
            for row in sides:
                policy[row] = 0
                policy[row].scatter_(-1, outputs.tokens[row][:, None], 1e4)
    loss = sum(objective.weighted(computed(objective, outputs)).values())
    assert torch.isfinite(loss).all()
    loss.mean().backward()
    assert all(torch.isfinite(policy.grad[outputs.code]).all() for policy in outputs.policies)


def test_empty_masks_of_both_programs():
    outputs = fake_outputs(pairs=1, empty_rows=(0, 1))
    for reduction in losses.REDUCTIONS:
        cpt, sven = (computed(o, outputs) for o in (CPT(reduction=reduction, w_hinge=1.0), SVEN(reduction=reduction)))
        assert cpt["l_rank"].item() == pytest.approx(math.log(2))
        assert cpt["l_lm"] == cpt["l_hinge"] == sven["l_lm"] == sven["l_contrast"] == 0
    assert computed(DPO(over="differences"), outputs)["l_dpo"].item() == pytest.approx(math.log(2))


def test_fully_masked_programs_have_no_kl():
    outputs = fake_outputs(pairs=1)
    outputs.mask = outputs.code.clone()
    for reduction in losses.REDUCTIONS:
        for objective in (CPT(reduction=reduction), SVEN(reduction=reduction)):
            assert computed(objective, outputs)["l_kl"] == 0


def test_the_hinge_is_there_only_when_asked_and_only_below_the_backbone():
    outputs = fake_outputs(pairs=4)
    assert "l_hinge" not in computed(CPT(), outputs)
    hinge = computed(CPT(w_hinge=0.5), outputs)["l_hinge"]
    before, now = (
        losses.sequence_score(x, outputs.mask)[:4]
        for x in (outputs.reference_scores(outputs.mask), outputs.scores(outputs.mask))
    )
    falls = [b - n for b, n in zip(before.tolist(), now.tolist(), strict=True)]
    assert hinge.tolist() == pytest.approx([max(0.0, fall) for fall in falls])
    assert 0 < (hinge == 0).sum() < 4  # both cases are here
    (gradient,) = torch.autograd.grad(hinge.sum(), outputs.policies[0])
    assert [bool(g.any()) for g in gradient[:4]] == (hinge > 0).tolist() and not gradient[4:].any()


def test_dpop_without_penalty_is_dpo():
    outputs = fake_outputs()
    for over in ("code", "differences"):
        mine, dpo = DPOP(beta=0.7, penalty=0.0, over=over), DPO(beta=0.7, over=over)
        torch.testing.assert_close(computed(mine, outputs)["l_dpop"], computed(dpo, outputs)["l_dpo"], rtol=0, atol=0)


def test_sven_treats_both_programs_alike():
    """Exchanging the programs and the policies changes nothing."""
    outputs = fake_outputs()
    swap = [3, 4, 5, 0, 1, 2]
    parts = (x[swap] for x in (outputs.backbone, outputs.tokens, outputs.mask, outputs.code))
    lengths = [outputs.lengths[row] for row in swap]
    swapped = FakeOutputs([p[swap] for p in outputs.policies[::-1]], *parts, lengths=lengths)
    for name, term in computed(SVEN(), outputs).items():
        torch.testing.assert_close(term, computed(SVEN(), swapped)[name], rtol=1e-13, atol=0)


def test_the_second_stage_follows_the_first():
    assert NLL.after(CPT()) == NLL()
    assert NLL.after(CPT(reduction="mean")) == NLL(reduction="mean")
    assert NLL.after(DPO()) == NLL()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: CPT(reduction="median"), "CPT: reduction=median cannot be: it must be sum or mean."),
        (lambda: SVEN(kl_direction="both"), "SVEN: kl_direction=both cannot be: it must be policy_reference or "),
        (lambda: Compute(step="slow"), "Compute: step=slow cannot be: it must be fast or plain."),
        (lambda: DPO(over="all"), "DPO: over=all cannot be: it must be code or differences."),
        (lambda: DPO(beta=0.0), "DPO: beta=0.0 cannot be: it must be a number above 0."),
        (lambda: SimPO(gamma="big"), "SimPO: gamma=big cannot be: it must be a number from 0 up."),
        (lambda: ORPO(w_odds=-1), "ORPO: w_odds=-1 cannot be: it must be a number from 0 up."),
        (lambda: DPOP(penalty=float("nan")), "DPOP: penalty=nan cannot be"),
        (lambda: CPT(w_hinge=True), "CPT: w_hinge=true cannot be"),
        (lambda: SVEN(w_contrast=None), "SVEN: w_contrast=null cannot be"),
    ],
)
def test_mistakes(make, said):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value).startswith(said)


def test_every_objective_has_a_config():
    assert set(CONFIGS) == {path.stem for path in Path(ROOT / "conf/objective").glob("*.yaml")}
    assert {type(objective) for objective in CONFIGS.values()} == set(Objective.__subclasses__())


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_compose_and_hold_the_defaults(name, tmp_path):
    composed = config("train", tmp_path, f"objective={name}")
    validate(composed)
    assert instantiate(composed.objective, "objective") == CONFIGS[name]
    written = dict(composed.objective)
    assert written.pop("_target_") == f"cptlab.training.objectives.{type(CONFIGS[name]).__name__}"
    assert written == asdict(CONFIGS[name])  # every setting is in the file, to be seen and overridden
    assert composed.stages.second_epochs == (1 if name.startswith("cpt") else 0)
    assert composed.stages.first_epochs == 3
    numbers = [key for key, value in written.items() if isinstance(value, float)]
    changed = config("train", tmp_path, f"objective={name}", *(f"objective.{key}=0.25" for key in numbers))
    expected = replace(CONFIGS[name], **dict.fromkeys(numbers, 0.25))
    assert instantiate(changed.objective, "objective") == expected
