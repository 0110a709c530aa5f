"""Attention dilution: both shares against naive computations, averages by hand, and the command with its mistakes."""

import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from run_commands import config
from tiny_models import SLIDING, M, random_prefix, tiny_backbone, tokens
from transformers.cache_utils import DynamicCache

from cptlab.adapters import save_prefix
from cptlab.analysis.dilution import attention_share, programs, summary
from cptlab.analysis.dilution.attention_share import Shares
from cptlab.analysis.dilution.figures import dilution_figure
from cptlab.analysis.dilution.programs import Program, generate_program
from cptlab.backbone import load_backbone
from cptlab.commands import dilution as command
from cptlab.decoding import Beams, Guidance, Sampling, generate
from cptlab.errors import UserError
from cptlab.records import Prompt, Span
from cptlab.reporting.figures import render
from cptlab.settings.validation import validate

ARCHITECTURES = ("llama", "llama_gqa", "gpt2", "gpt_bigcode", "codegen", "phi", "gpt_neox", "starcoder2", "mixtral")
PROMPT, NEW = 7, 9


def program(seed: int = 3) -> Program:
    prompt, new = tokens(PROMPT, NEW, seed=seed)
    return Program("t/1", tuple(prompt.tolist()), tuple(new.tolist()))


def prefilled(backbone, prefix) -> DynamicCache:
    cache = DynamicCache()
    for layer, (key, value) in enumerate(prefix.key_values() if prefix is not None else ()):
        dtype = backbone.model.dtype
        cache.update(key[None].detach().to(dtype), value[None].detach().to(dtype), layer)
    return cache


def naive_rows(arch: str, given: Program, with_prefix: bool, **overrides) -> list[torch.Tensor]:
    """Step by step, as a decoding loop with output_attentions sees it: weights of the newest position, mean over heads."""
    backbone = tiny_backbone(arch, **overrides)
    backbone.model.set_attn_implementation("eager")
    cache, start = prefilled(backbone, random_prefix(backbone) if with_prefix else None), M if with_prefix else 0
    feed, rows = list(given.prompt), []
    for token in given.tokens:
        positions = torch.arange(start, start + len(feed))[None]
        with torch.no_grad():
            output = backbone.model(input_ids=torch.tensor([feed]), past_key_values=cache, position_ids=positions,
                                    use_cache=True, output_attentions=True)  # fmt: skip
        rows.append(output.attentions[-1][0, :, -1].mean(0).double())
        start, feed = start + len(feed), [token]
    return rows


@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_attention_equals_a_decoding_loop(arch, with_prefix):
    given, backbone = program(), tiny_backbone(arch)
    before = M if with_prefix else 0
    prefix = random_prefix(backbone) if with_prefix else None
    share, _, on_prefix = attention_share.attention_shares(backbone, given, prefix)
    rows = naive_rows(arch, given, with_prefix)
    assert [len(row) for row in rows] == [before + PROMPT + i for i in range(NEW)]
    for i, row in enumerate(rows):
        prompt, generated = row[before : before + PROMPT].sum(), row[before + PROMPT :].sum()
        assert share[i] == pytest.approx(float(prompt / (prompt + generated)), abs=1e-5)
        if with_prefix:
            assert on_prefix[i] == pytest.approx(float(row[:before].sum()), abs=1e-5)
    assert share[0] == 1 and min(share) < 0.9 and bool(on_prefix) == with_prefix


@pytest.mark.parametrize("arch", ["mistral", "starcoder2"])
def test_a_prompt_outside_the_window_has_no_share(arch):
    given = program()
    share, _, _ = attention_share.attention_shares(tiny_backbone(arch, **SLIDING[arch]), given)
    rows = naive_rows(arch, given, False, **SLIDING[arch])
    for i, row in enumerate(rows):  # the cache of a sliding layer holds the last keys alone
        assert share[i] == pytest.approx(1 - float(row[len(row) - i :].sum()) if i else 1, abs=1e-5)
    assert share[8] == 0  # a window of 8 then holds generated tokens only


@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])
def test_summed_attention_is_equation_20(arch):
    given, backbone = program(), tiny_backbone(arch)
    prefix = random_prefix(backbone)
    weights = attention_share.last_layer_attention(backbone, given.prompt + given.tokens, prefix)
    assert weights.shape == (4, PROMPT + NEW, M + PROMPT + NEW)
    assert torch.allclose(weights.sum(-1), torch.ones(4, PROMPT + NEW), atol=1e-5)
    _, summed, _ = attention_share.attention_shares(backbone, given, prefix)
    for i in range(NEW):
        context = PROMPT + i
        received = weights[:, :context, M : M + context].sum((0, 1))  # by each token, from all positions so far
        assert summed[i] == pytest.approx(float(received[:PROMPT].sum() / received.sum()), abs=1e-5)


def authors_gradient(backbone, ids: list[int], prefix, top: int) -> torch.Tensor:
    """The score of every token of a context, written after get_gradient_attention in the authors' code."""
    embeds = backbone.model.get_input_embeddings()(torch.tensor([ids])).detach().requires_grad_(True)
    start = 0 if prefix is None else prefix.length
    output = backbone.model(inputs_embeds=embeds, past_key_values=prefilled(backbone, prefix), use_cache=True,
                            position_ids=torch.arange(start, start + len(ids))[None])  # fmt: skip
    logits = output.logits[:, -1]
    kept = torch.zeros_like(logits).scatter(1, logits.topk(top).indices, logits.topk(top).values)
    kept.sum().backward()
    norms = torch.norm(embeds.grad[0], dim=1)
    return norms / norms.sum()


@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2", "gpt_neox", "starcoder2"])
def test_gradient_equals_one_pass_a_token(arch, with_prefix):
    given, backbone = program(), tiny_backbone(arch)
    backbone.model.double()
    prefix = random_prefix(backbone) if with_prefix else None
    found = list(attention_share.gradient_shares(backbone, given, prefix, top_logits=100))
    for i in range(NEW):
        scores = authors_gradient(backbone, [*given.prompt, *given.tokens[:i]], prefix, 100)
        assert found[i] == pytest.approx(float(scores[:PROMPT].sum()), abs=1e-9)
    assert found[0] == 1 and min(found) < 0.95
    assert found[1:] != list(attention_share.gradient_shares(backbone, given, prefix, top_logits=1))[1:]
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_gradient_equals_finite_differences():
    given, backbone = program(), tiny_backbone("gpt2")  # Llama's norms compute in float32 whatever the weights are
    backbone.model.double()
    prefix, step, i = random_prefix(backbone), 1e-5, 4
    ids = torch.tensor([[*given.prompt, *given.tokens[:i]]])
    change = torch.zeros(1, ids.shape[1], backbone.hidden_size, dtype=torch.float64)
    hook = backbone.model.get_input_embeddings().register_forward_hook(lambda module, args, output: output + change)

    def value() -> float:
        with torch.no_grad():
            return float(backbone.logits(ids, torch.ones_like(ids), prefix)[0, -1].topk(5).values.sum())

    slopes = torch.zeros_like(change)
    for t in range(ids.shape[1]):
        for d in range(backbone.hidden_size):
            change[0, t, d] = step
            above = value()
            change[0, t, d] = -step
            slopes[0, t, d] = (above - value()) / (2 * step)
            change[0, t, d] = 0
    hook.remove()
    norms = slopes[0].norm(dim=-1)
    found = list(attention_share.gradient_shares(backbone, given, prefix, top_logits=5))[i]
    assert found == pytest.approx(float(norms[:PROMPT].sum() / norms.sum()), abs=1e-5)


def test_the_model_is_left_as_it_was():
    backbone, given = tiny_backbone("llama_gqa"), program()
    ids = torch.tensor([given.prompt])
    used, before = backbone.config._attn_implementation, backbone.logits(ids, torch.ones_like(ids))
    attention_share.compute_shares(backbone, given)
    assert used == backbone.config._attn_implementation == "sdpa"
    assert torch.equal(before, backbone.logits(ids, torch.ones_like(ids)))
    assert not any(module._forward_hooks for module in backbone.model.modules())
    with pytest.raises(UserError, match="outside|another backbone"):
        attention_share.attention_shares(backbone, given, random_prefix(tiny_backbone("llama")))
    assert backbone.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks for module in backbone.model.modules())


def test_a_gradient_that_is_no_number_is_said():
    backbone = tiny_backbone("llama")
    with torch.no_grad():
        backbone.model.lm_head.weight.fill_(torch.inf)
    with pytest.raises(UserError, match="t/1 at token 0 is not a number"):
        list(attention_share.gradient_shares(backbone, program()))


TEXT = '"""Given a string, reverse the characters, and return the result.\n"""\ndef solve(text):'
GREEDY = Sampling(temperature=0, max_new_tokens=60)


@pytest.mark.parametrize(
    "sampling, options",
    [
        (GREEDY, {}),
        (Sampling(max_new_tokens=40), {}),
        (Sampling(temperature=0, max_new_tokens=60, stop=("return",)), {}),
        (Sampling(max_new_tokens=40), {"guidance": Guidance(omega=1.5)}),
        (GREEDY, {"strategy": Beams(2)}),
    ],
)
def test_the_program_is_the_one_that_evaluation_judges(sampling, options):
    backbone = load_backbone("kata-lm", mask_token="<mask>")
    prompt = Prompt(TEXT, "def solve(text):", (Span("nl", 3, 67),))
    for prefix in (None, random_prefix(backbone)):
        ours = generate_program(backbone, "t/1", prompt, sampling, prefix=prefix, seed=4, **options)
        n = 1 if "strategy" in options else 2
        ((theirs, *_),) = generate(backbone, [("t/1", prompt)], n, sampling, prefix=prefix, seed=4, **options)
        assert backbone.decode(ours.tokens) == theirs.raw and len(ours.tokens) == theirs.tokens
        assert list(ours.prompt) == backbone.encode_prompt(TEXT)


def test_a_program_is_capped_and_needs_room():
    backbone = load_backbone("kata-lm")
    whole, short = (generate_program(backbone, "t/1", Prompt(TEXT), GREEDY, max_tokens=n) for n in (400, 3))
    assert short.tokens == whole.tokens[:3] and len(whole.tokens) > 3
    with pytest.raises(UserError, match="longer context"):
        generate_program(backbone, "t/1", Prompt("x = 1\n" * 900), GREEDY)


def test_a_healed_end_stays_part_of_the_prompt():
    backbone = load_backbone("kata-lm")
    healed = generate_program(backbone, "t/1", Prompt(TEXT[:-3]), GREEDY)  # ends within what may go on as one token
    text = backbone.decode([*healed.prompt, *healed.tokens])
    assert text.startswith(TEXT[:-3]) and backbone.decode(healed.prompt) in TEXT
    following = backbone.decode(healed.prompt + healed.tokens[:1])
    assert len(backbone.decode(healed.prompt)) <= len(TEXT[:-3]) < len(following)  # the first token has new text


def shares(task: str, prompt: int, *values: float) -> Shares:
    return Shares(task, prompt, ("x",) * len(values), values, values)


def test_means_by_token():
    found = summary.by_token([shares("a", 4, 1.0, 0.6, 0.2), shares("b", 2, 1.0, 0.4), shares("c", 2, 1.0, 0.2, 0.4)])
    assert found["token"] == [0, 1, 2] and found["tasks"] == [3, 3, 2]
    assert found["attention"]["mean"] == pytest.approx([1, 0.4, 0.3])
    assert found["uniform"]["mean"] == pytest.approx([1, (4 / 5 + 2 / 3 + 2 / 3) / 3, (4 / 6 + 2 / 4) / 2], abs=1e-6)
    assert found["attention"]["low"][1] == pytest.approx(0.2) and found["attention"]["high"][1] == pytest.approx(0.6)
    assert "gradient" not in found and "attention_prefix" not in found
    alone = summary.by_token([shares("a", 4, 1.0, 0.6)])["attention"]
    assert alone == {"mean": [1, 0.6], "low": [None, None], "high": [None, None]}


def test_an_interval_covers_the_mean_as_often_as_it_says():
    generator, hits = torch.Generator().manual_seed(0), 0
    for _ in range(200):
        values = torch.rand(40, generator=generator).tolist()
        one = summary.by_token([shares(str(i), 4, value) for i, value in enumerate(values)])["attention"]
        hits += one["low"][0] <= 0.5 <= one["high"][0]
    assert 180 <= hits <= 198


def test_change_within_programs():
    falling = [shares(str(i), 5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5) for i in range(3)]
    found = summary.change([*falling, shares("short", 5, 1.0, 0.1)])
    assert found["tasks"] == 3 and found["attention"]["falls_in"] == 3
    assert found["attention"]["mean"] == pytest.approx((0.6 + 0.5) / 2 - (0.9 + 0.8) / 2)
    even = shares("even", 5, *(5 / (5 + i) for i in range(40)))  # a fall that is the context's growth and nothing else
    assert summary.change([even])["attention"]["per_token"]["mean"] == pytest.approx(1)
    odds = [3 * 5 / i for i in range(1, 20)]  # every prompt token weighs three times a generated one, then six times
    odds[10:] = [2 * odd for odd in odds[10:]]
    more = shares("more", 5, 1.0, *(odd / (1 + odd) for odd in odds))
    assert summary.change([more])["attention"]["per_token"]["mean"] == pytest.approx(2)
    assert summary.change([shares("short", 5, 1.0)]) == {"tasks": 0}
    assert math.isfinite(summary.change([shares("edge", 5, 1.0, 1.0, 0.0)])["attention"]["per_token"]["mean"])


def test_figures_show_every_model():
    one = summary.by_token([shares("a", 4, 1.0, 0.6, 0.2), shares("b", 2, 1.0, 0.4)])
    figure = dilution_figure({"first": one, "second": one}, "attention", "kata, 2 tasks, greedy")
    share, count = figure.axes
    assert [text.get_text() for text in share.get_legend().get_texts()] == [
        "first",
        "second",
        "if all tokens counted the same",
    ]
    assert list(share.lines[0].get_ydata()) == pytest.approx([1, 0.5])  # of all tasks; the third token is drawn faintly
    assert list(share.lines[1].get_ydata()) == pytest.approx([0.5, 0.2])
    assert list(count.get_yticks()) == [0, 2]
    pictures = render(figure)
    assert pictures["png"][:4] == b"\x89PNG" and b"second" not in pictures["png"][:4] and b"<svg" in pictures["svg"]


TINY = ("backbone=kata_lm", "benchmark=kata", "limit=3", "max_tokens=5")


def run(where: Path, *overrides: str, name: str = "now") -> Path:
    composed = config("dilution", where, *overrides)
    validate(composed)
    command.dilution(composed, where / "logs" / "dilution" / "runs" / name)
    return where / "logs" / "dilution" / "runs" / name


def test_the_command_leaves_data_and_figures(tmp_path, capsys):
    directory = run(tmp_path, *TINY)
    data = json.loads((directory / "dilution.json").read_text())
    assert data["tasks"] == len(data["programs"]) == 3 and data["tokens"] == 15 and data["by_token"]["tasks"] == [3] * 5
    for row in data["programs"]:
        assert len(row["tokens"]) == len(row["attention"]) == len(row["gradient"]) == 5
        assert row["attention"][0] == row["gradient"][0] == 1 and all(0 <= a <= 1 for a in row["attention"])
    assert {"difficulty", "task_id", "prompt_tokens", "attention_summed"} <= set(data["programs"][0])
    assert all(
        (directory / f"{name}.{kind}").stat().st_size for name in ("attention", "gradient") for kind in ("png", "svg")
    )
    assert json.loads((directory / "run.json").read_text())["finished"]
    printed = capsys.readouterr()
    assert "last-layer attention" in printed.out and "second half" in printed.out and "15 tokens" in printed.err


def test_a_killed_run_goes_on_task_by_task(tmp_path, monkeypatch):
    calls, real = [], attention_share.compute_shares

    def killed(backbone, program, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(program.task_id)
        return real(backbone, program, **options)

    monkeypatch.setattr(attention_share, "compute_shares", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *TINY, "gradient=false", name="first")
    monkeypatch.setattr(programs, "generate_program", None)  # the programs are there
    monkeypatch.setattr(attention_share, "compute_shares", lambda *a, **k: calls.append(a[1].task_id) or real(*a, **k))
    run(tmp_path, *TINY, "gradient=false", name="second")
    first = tmp_path / "logs" / "dilution" / "runs" / "first"
    data = json.loads((first / "dilution.json").read_text())
    assert data["provenance"]["resumed"] and len(calls) == 3 == len(set(calls))
    assert not (first / "gradient.png").exists() and data["programs"][0]["gradient"] == []
    monkeypatch.undo()
    other = json.loads((run(tmp_path / "other", *TINY, "gradient=false") / "dilution.json").read_text())
    assert other["programs"] == data["programs"] and other["by_token"] == data["by_token"]


def test_a_tuned_prefix_beside_the_base_model(tmp_path, capsys):
    base = run(tmp_path, *TINY, name="base")
    backbone, trained = load_backbone("kata-lm"), tmp_path / "trained"
    save_prefix(random_prefix(backbone), trained / "prefix", backbone)
    OmegaConf.save(config("evaluate", tmp_path, "backbone=kata_lm", "benchmark=kata"), trained / "config.yaml")
    tuned = run(tmp_path, f"run={trained}", *TINY[2:], f"compare=[{base}]", name="tuned")
    data = json.loads((tuned / "dilution.json").read_text())
    for row in data["programs"]:
        assert all(0 < value < 1 for value in row["attention_prefix"])
    svg = (tuned / "attention.svg").read_text()
    assert data["label"] == "kata-lm with prefix" and "on the prefix" in capsys.readouterr().out
    assert svg.count("<!-- kata-lm") == 2 and "<!-- kata-lm with prefix -->" in svg


@pytest.mark.parametrize(
    "overrides, expected",
    [
        ((), "Add benchmark=kata"),
        (("benchmark=kata",), "Add backbone=kata_lm"),
        (("run=/no/such/run",), "/no/such/run is no finished training run"),
        (("run=latest",), "no finished training run"),
        ((*TINY, "max_tokens=0"), "max_tokens=0 cannot be"),
        ((*TINY, "top_logits=0.5"), "top_logits=0.5 cannot be"),
        ((*TINY, "gradient=some"), "gradient=some cannot be"),
        ((*TINY, "limit=0"), "limit=0 cannot be"),
        ((*TINY, "compare=/some/where"), "compare=/some/where cannot be: it must be a list"),
        ((*TINY, "compare=[/no/such/run]"), "/no/such/run holds no dilution.json"),
        ((*TINY, "decoding=spa", "decoding/gate=failed_tests"), "no gate can wait for failed ones"),
        ((*TINY, "decoding=dial"), "there is no prefix"),
        ((*TINY, "split=exam"), "has no split 'exam'"),
    ],
)
def test_mistakes_are_one_sentence(overrides, expected, tmp_path):
    with pytest.raises(UserError) as caught:
        run(tmp_path, *overrides)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "logs").exists()
