"""Second streams, gates and rules: each against a computation without a cache; and what makes no sense is refused."""

import math

import pytest
import torch
from test_spa import PROMPTS, tagged
from tiny_models import double

from cptlab.adapters import Policy, Prefix
from cptlab.decoding import (
    Always,
    Deviation,
    Entropy,
    FailedTests,
    Guidance,
    Linear,
    Masked,
    NoExamples,
    NoPrefix,
    OtherPrompt,
    Plausible,
    Sampling,
    generate,
)
from cptlab.decoding.gates.entropy import entropy
from cptlab.decoding.rules.linear import mix
from cptlab.decoding.sampling import choose, uniforms
from cptlab.errors import UserError
from cptlab.records import Prompt, Span

WARM = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=12)
EXAMPLES = [
    ("a", tagged("Add.\n«>>> f(1)\n»«2\n»def f(x):", "tests", "shots")),
    ("b", tagged("«>>> g()»\n# more", "tests")),
    ("c", tagged("no examples at all")),
]
ROTARY_AND_ABSOLUTE = pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])


def without_examples(prompt: Prompt) -> str:
    gone = {i for span in prompt.spans for i in range(span.start, span.end)}
    return "".join(letter for i, letter in enumerate(prompt.text) if i not in gone)


def loop(backbone, task_id, first, second, guidance, prefix=None, second_prefix=None, sample=0, seed=0):
    """One sample, with both streams recomputed whole at every token; and how often the gate was open."""
    numbers = torch.from_numpy(uniforms(seed, task_id, sample, WARM.max_new_tokens))
    new, opened = [], 0
    for position in range(WARM.max_new_tokens):
        logits = []
        for ids, own in ((first + new, prefix), (second + new, second_prefix)):
            rows = torch.tensor([ids])
            with torch.no_grad():
                logits.append(backbone.logits(rows, torch.ones_like(rows), own)[:, -1])
        mixed = guidance.rule.mix(*logits, guidance.omega)
        opens = bool(guidance.gate.opens(logits[0])[0])
        opened += opens
        new.append(int(choose(mixed if opens else logits[0], WARM, numbers[position : position + 1])))
        if new[-1] in backbone.eos_ids:
            break
    return new, opened


def some_prefix(backbone):
    prefix = Prefix(backbone.shape, length=4, seed=3).double()
    prefix.table.data *= 30
    return prefix


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("sliding", [False, True])
def test_the_prefix_can_be_what_the_streams_differ_in(arch, sliding):
    """ω as a dial: 0 is the model without its prefix, 1 with it; rows of both kinds of stream share every forward."""
    arch, overrides = ("mistral", {"sliding_window": 8}) if sliding and arch != "gpt2" else (arch, {})
    backbone = double(arch, eos=range(0, 8), **overrides)
    prefix = some_prefix(backbone)
    for omega in (0.0, 0.6, 1.0, 1.7):
        guidance = Guidance(NoPrefix(), omega)
        rows = list(generate(backbone, PROMPTS, 3, WARM, prefix=prefix, guidance=guidance, token_budget=300))
        for (task_id, prompt), row in zip(PROMPTS, rows, strict=True):
            ids = backbone.encode_prompt(prompt.text)
            for completion in row:
                new, _ = loop(backbone, task_id, ids, ids, guidance, prefix, None, completion.sample)
                assert (completion.raw, completion.tokens) == (backbone.decode(new), len(new))
        if omega in (0.0, 1.0):
            assert rows == list(generate(backbone, PROMPTS, 3, WARM, prefix=prefix if omega else None))
    with pytest.raises(UserError, match="there is none"):
        generate(backbone, PROMPTS, 1, WARM, guidance=Guidance(NoPrefix(), 1.3))


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("with_prefix", [False, True])
def test_examples_can_be_cut_from_the_second_stream(arch, with_prefix):
    backbone = double(arch, eos=range(0, 8))
    prefix = some_prefix(backbone) if with_prefix else None
    guidance = Guidance(NoExamples(), 1.6)
    assert NoExamples().stream(backbone, EXAMPLES[2][1]) is None
    assert NoExamples().stream(backbone, EXAMPLES[0][1]).ids == backbone.encode_prompt("Add.\ndef f(x):")
    rows = list(generate(backbone, EXAMPLES, 3, WARM, prefix=prefix, guidance=guidance))
    assert rows[2] == list(generate(backbone, EXAMPLES, 3, WARM, prefix=prefix))[2]
    for (task_id, prompt), row in list(zip(EXAMPLES, rows, strict=True))[:2]:
        first, second = backbone.encode_prompt(prompt.text), backbone.encode_prompt(without_examples(prompt))
        for completion in row:
            new, _ = loop(backbone, task_id, first, second, guidance, prefix, prefix, completion.sample)
            assert completion.raw == backbone.decode(new)


@pytest.mark.parametrize("omega", [0.5, 1.7])
def test_a_masked_prompt_is_a_negative_prompt_of_transformers_generate(omega):
    backbone = double("llama_gqa", eos=range(0, 8))
    greedy = Sampling(temperature=0, max_new_tokens=12)
    guidance = Guidance(Masked(), omega)
    (row,) = generate(backbone, PROMPTS[:1], 1, greedy, guidance=guidance)
    ids = torch.tensor([backbone.encode_prompt(PROMPTS[0][1].text)])
    negative = torch.tensor([guidance.negative.stream(backbone, PROMPTS[0][1]).ids])
    whole = backbone.model.generate(
        ids, attention_mask=torch.ones_like(ids), guidance_scale=omega, negative_prompt_ids=negative,
        negative_prompt_attention_mask=torch.ones_like(negative), do_sample=False, max_new_tokens=12,
        eos_token_id=list(range(8)), pad_token_id=backbone.pad_id,
    )  # fmt: skip
    assert row[0].raw == backbone.decode(whole[0, ids.shape[1] :].tolist())


def test_another_prompt_is_written_with_a_template():
    backbone = double("llama_gqa")
    prompt = Prompt("# Say {code}.\ndef f():\n", "def f():\n")
    ids = OtherPrompt("# untidy\n{code}").stream(backbone, prompt).ids
    assert ids == backbone.encode_prompt("# untidy\ndef f():\n")
    assert OtherPrompt("# bad\n{prompt}").stream(backbone, prompt).ids == backbone.encode_prompt(
        "# bad\n" + prompt.text
    )
    with pytest.raises(UserError, match="the first stream itself"):
        OtherPrompt("{prompt}")
    with pytest.raises(UserError, match="empty second prompt"):
        OtherPrompt("{code}").stream(backbone, Prompt("no code"))
    guidance = Guidance(OtherPrompt("# untidy\n{code}"), 1.5)
    ((completion,),) = generate(backbone, [("t", prompt)], 1, WARM, guidance=guidance)
    new, _ = loop(backbone, "t", backbone.encode_prompt(prompt.text), ids, guidance)
    assert completion.program == prompt.code + backbone.decode(new)


@pytest.mark.parametrize(
    "gate", [Entropy(4.9), Deviation(0.05), Always(), FailedTests()], ids=lambda gate: type(gate).__name__
)
@pytest.mark.parametrize("rule", [Linear(), Plausible(0.3)], ids=lambda rule: type(rule).__name__)
def test_gates_and_rules_at_every_step(gate, rule):
    """Also rows whose gates and rules differ, in one batch."""
    backbone = double("llama_gqa", eos=range(0, 8), initializer_range=0.4)
    guidance = Guidance(Masked("all"), 1.8, gate, rule)
    others = [
        guidance,
        Guidance(Masked(), 0.5),
        None,
        Guidance(Masked(["nl", "tests"]), 2.5, Entropy(1.0), Plausible(0.01)),
    ]
    rows = list(generate(backbone, PROMPTS, 2, WARM, guidance=others))
    opened = []
    for (task_id, prompt), row, one in zip(PROMPTS, rows, others, strict=True):
        stream = None if one is None else one.stream(backbone, prompt, False)
        if stream is None:
            continue
        for completion in row:
            new, count = loop(
                backbone, task_id, backbone.encode_prompt(prompt.text), stream.ids, one, None, None, completion.sample
            )
            assert completion.raw == backbone.decode(new)
            opened.append((count, len(new)))
    assert any(count for count, _ in opened)


def test_the_gates_measure_what_they_say():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, -torch.inf]])
    probs = logits.double().softmax(-1)
    expected = torch.special.entr(probs).sum(-1)
    torch.testing.assert_close(entropy(logits).double(), expected, rtol=1e-5, atol=1e-6)
    assert math.isclose(float(entropy(logits)[0]), math.log(4), rel_tol=1e-6)
    assert Entropy(0.69).opens(logits).tolist() == [True, False, True]
    largest = torch.tensor([1.0, 0.0, 0.0, 0.0]).std(correction=0)
    shares = probs.std(-1, correction=0) / largest
    for threshold in (0.1, 0.5, 0.99):
        assert Deviation(threshold).opens(logits).tolist() == (shares < threshold).tolist()
    assert FailedTests().opens(logits).all() and FailedTests.after_failure


def test_the_floor_keeps_plausible_tokens_alone():
    generator = torch.Generator().manual_seed(0)
    clean, second = 3 * torch.randn(2, 5, 40, generator=generator, dtype=torch.float64)
    clean[0, 3] = second[1, 4] = -torch.inf
    mixed = Plausible(0.2).mix(clean, second, 3.0)
    probs = clean.softmax(-1)
    plausible = (probs >= 0.2 * probs.max(-1, keepdim=True).values) & ~torch.isneginf(second)
    assert torch.equal(torch.isfinite(mixed), plausible)
    assert torch.equal(mixed[plausible], mix(clean, second, 3.0)[plausible])


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Guidance(Masked(), float("nan")), "omega=nan cannot be: it must be a number"),
        (lambda: Guidance(Masked(), "much"), "omega=much cannot be: it must be a number"),
        (lambda: Masked([]), "No span is anchored"),
        (lambda: Masked(["body"]), "no prompt span 'body'"),
        (lambda: Entropy(0), "Entropy: threshold=0 cannot be: it must be a number above 0"),
        (lambda: Deviation(0), "above 0 and at most 1"),
        (lambda: Plausible(0), "floor=0 cannot be: it must be a number above 0 and at most 1"),
        (lambda: Plausible(2), "above 0 and at most 1"),
    ],
)
def test_values_that_make_no_sense(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_span_names_can_be_joined():
    assert Masked("all").spans == ("nl", "code", "tests", "shots")
    assert Masked("nl+tests").spans == ("nl", "tests") == Masked(["nl", "tests"]).spans


def test_only_some_samples_can_be_made():
    backbone = double("llama_gqa", eos=range(0, 24))
    whole = list(generate(backbone, PROMPTS, 4, WARM))
    some = list(generate(backbone, PROMPTS, 4, WARM, samples=[[3], [], [0, 2], [1]], token_budget=100))
    assert some == [[whole[0][3]], [], [whole[2][0], whole[2][2]], [whole[3][1]]]


def test_a_program_is_made_again_where_it_failed_its_public_tests(tmp_path):
    from cptlab.backbone import load_backbone
    from cptlab.systems.decoding import Decoding
    from cptlab.systems.judge import Judge
    from cptlab.systems.loading import LoadedSystem
    from cptlab.systems.samples import sample_and_judge
    from cptlab.tasks.kata import kata

    backbone = load_backbone("kata-lm")
    tasks = [task for task in kata().split("validation") if task.kind == "call"][:4]
    sampling, n = Sampling(max_new_tokens=96), 3
    guidance = Guidance(Masked(), 1.5, FailedTests())
    base = LoadedSystem("base", Policy(backbone), Decoding(sampling))
    guided = LoadedSystem("guided", Policy(backbone), Decoding(sampling, guidance=guidance))
    plain = sample_and_judge(base, tasks, n, Judge(tmp_path / "a"))
    again = sample_and_judge(guided, tasks, n, Judge(tmp_path / "b"))
    always = list(generate(backbone, [(t.id, t.prompt) for t in tasks], n, sampling, guidance=Guidance(Masked(), 1.5)))
    other = [completion for row in always for completion in row]
    failed = [verdict.public_passed < verdict.public_total for verdict in plain.verdicts]
    assert 0 < sum(failed) < len(failed)
    for i, made_again in enumerate(failed):
        assert again.completions[i].program == (other if made_again else plain.completions)[i].program
    made = [plain.completions[i].tokens for i in range(len(failed))] + [
        other[i].tokens for i, made_again in enumerate(failed) if made_again
    ]
    assert again.cost.programs == len(made) / len(failed) and again.cost.tokens == sum(made) / len(failed)
    assert plain.cost.programs == 1
    assert sum(v.passed for v in again.verdicts) >= sum(
        v.passed for v in plain.verdicts
    )  # a second try costs none that passed
    bare = [type(task)(**(vars(task) | {"public_tests": ()})) for task in tasks]
    with pytest.raises(UserError, match="asks for public tests"):
        sample_and_judge(guided, bare, n, Judge(tmp_path / "c"))


def test_spans_may_overlap_and_touch():
    prompt = Prompt("abcdefgh", spans=(Span("tests", 1, 4), Span("shots", 3, 5), Span("tests", 5, 6)))
    backbone = double("gpt2")
    assert NoExamples().stream(backbone, prompt).ids == backbone.encode_prompt("agh")


def test_a_rule_that_bans_much_goes_with_healing():
    """What heals the prompt is sorted out first, or nothing would be left to choose."""
    from cptlab.backbone import load_backbone
    from cptlab.decoding.strategies.beams import Beams

    backbone = load_backbone("kata-lm")
    prompt = Prompt('"""Sort a list.\n"""\ndef solve(x): ', "", (Span("nl", 3, 15),))
    guidance = Guidance(Masked(), 1.5, rule=Plausible(0.9))
    for sampling, strategy in ((Sampling(max_new_tokens=8), None), (Sampling(temperature=0, max_new_tokens=8), None),
                               (Sampling(temperature=0, max_new_tokens=8), Beams(2))):  # fmt: skip
        ((one, two),) = generate(backbone, [("a", prompt)], 2, sampling, guidance=guidance, strategy=strategy)
        assert one.raw.strip() and two.raw.strip()


def test_gates_need_not_be_hashable_and_edited_ones_make_other_programs(tmp_path):
    import dataclasses
    import sys
    import types

    from cptlab.systems.code_digest import code_digest

    @dataclasses.dataclass(frozen=True)
    class Some:
        tokens: list

        def opens(self, logits):
            return logits.argmax(-1) == self.tokens[0]

    backbone = double("llama_gqa")
    plain = list(generate(backbone, PROMPTS, 1, WARM))
    assert list(generate(backbone, PROMPTS, 1, WARM, guidance=Guidance(Masked(), 2.0, Some([-1])))) == plain
    digests = []
    for body in ("True", "False"):
        file = tmp_path / f"gate_{body}.py"
        file.write_text(f"class Gate:\n    def opens(self, logits):\n        return {body}\n")
        module = types.ModuleType("gate_of_mine")
        module.__file__ = str(file)
        exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
        sys.modules["gate_of_mine"] = module
        digests.append(code_digest(module.Gate()))
    assert len(set(digests)) == 2


def test_what_leaves_nothing_or_names_no_sample_is_refused():
    backbone = double("llama_gqa")
    only = Prompt("assert f(1)==2", "", (Span("tests", 0, 14),))
    with pytest.raises(UserError, match="second stream of task a has no tokens"):
        generate(backbone, [("a", only)], 1, WARM, guidance=Guidance(NoExamples(), 1.5))
    for samples in ([[0]], [[0], [1], [0], [1], [0]], [[2], [], [], []], [[-1], [], [], []]):
        with pytest.raises(UserError, match="some of the samples 0 to 1"):
            generate(backbone, PROMPTS, 2, WARM, samples=samples)


def test_long_prompts_are_read_in_several_passes(monkeypatch):
    from cptlab.decoding import waiting_queue

    backbone = double("gpt2", eos=range(0, 24))
    whole = list(generate(backbone, PROMPTS, 3, WARM, guidance=Guidance(Masked(), 1.5)))
    reads, extend = [], backbone.extend
    backbone.extend = lambda ids, *rest: (reads.append(ids.numel()), extend(ids, *rest))[1]
    monkeypatch.setattr(waiting_queue, "READ", 60)
    assert list(generate(backbone, PROMPTS, 3, WARM, guidance=Guidance(Masked(), 1.5))) == whole
    assert max(reads) <= 60 and len(reads) > 2
