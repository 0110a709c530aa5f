"""SPA as a logits processor of plain `model.generate`: the ten properties that apply to it.

The reference recomputes, at every token, each row's masked prompt and its new tokens alone: no padding, no cache.
"""

import peft
import pytest
import torch
from tiny_models import random_prefix, tiny_backbone, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

from cptlab.adapters import save_prefix
from cptlab.decoding import Guidance, Sampling, generate
from cptlab.decoding.anchors import anchored_prompt, parse_anchors
from cptlab.decoding.logits_processor import SPALogitsProcessor
from cptlab.decoding.negatives.masked import Masked
from cptlab.decoding.rules.linear import mix
from cptlab.errors import UserError

MASK, NEW = 258, 14
TEXTS = [
    "<anchor>Add the numbers.</anchor>\ndef add(a, b):",
    "# sum of <anchor>sum</anchor>\n",
    "nothing to anchor here, but rather long",
    "<anchor>é</anchor> and <anchor>longer words</anchor> count",
]
OMEGAS = [1.5, -0.5, 3.0, 2.0]
GREEDY = {"do_sample": False}
WARM = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 50}
ROTARY_AND_ABSOLUTE = pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])


def double(arch):
    """A tiny model in float64, so that padding and caching cannot change a token, and its tokenizer."""
    return tiny_model(arch).double().eval(), tiny_tokenizer()


def by_hand(text):
    """Clean and masked ids: one token per byte in the tiny tokenizer."""
    plain, spans = parse_anchors(text)
    clean = tiny_tokenizer()(plain).input_ids
    masked = list(clean)
    for span in spans:
        first, last = len(plain[: span.start].encode()), len(plain[: span.end].encode())
        masked[first:last] = [MASK] * (last - first)
    return clean, masked


class Recompute(LogitsProcessor):
    """The same mixture from the definition, and the second stream's logits of every call."""

    def __init__(self, model, texts, omegas):
        self.model, self.omegas = model, omegas
        self.masked = [by_hand(text)[1] for text in texts]
        self.width = max(map(len, self.masked))
        self.guided = [by_hand(text)[0] != masked for text, masked in zip(texts, self.masked)]

    def second(self, input_ids):
        each = len(input_ids) // len(self.masked)
        rows = []
        for row, ids in enumerate(input_ids.tolist()):
            whole = torch.tensor([self.masked[row // each] + ids[self.width :]])
            rows.append(self.model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[0, -1])
        return torch.stack(rows)

    def __call__(self, input_ids, scores):
        each = len(input_ids) // len(self.masked)
        omega = torch.tensor(self.omegas).repeat_interleave(each)[:, None]
        mixed = mix(scores, self.second(input_ids).float(), omega)
        if bool((scores <= 0).all()):  # beams
            mixed = mixed.log_softmax(-1)
        return torch.where(torch.tensor(self.guided).repeat_interleave(each)[:, None], mixed, scores)


def run(model, inputs, processor, n=NEW, **options):
    """The new tokens [rows, n]; it does not end by itself unless told."""
    torch.manual_seed(5)
    options = {"eos_token_id": None, "pad_token_id": 257} | options
    processors = LogitsProcessorList([] if processor is None else [processor])
    with torch.no_grad():
        output = model.generate(**inputs, logits_processor=processors, max_new_tokens=n, **options)
    if isinstance(output, torch.Tensor):
        return output[:, inputs["input_ids"].shape[1] :].tolist()
    return output


def forwards(model):
    """The shape of every forward pass's tokens, in a list that grows."""
    shapes = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("options", [GREEDY, WARM, {"num_beams": 3}])
def test_1_omega_one_or_no_anchor_is_plain_and_free(arch, options):
    model, tokenizer = double(arch)
    shapes = forwards(model)
    inputs, one = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, 1.0)
    plain = run(model, inputs, None, **options)
    cost = shapes.copy()
    shapes.clear()
    assert run(model, inputs, one, **options) == plain and shapes == cost
    shapes.clear()
    no_anchors, none = SPALogitsProcessor.from_texts(model, tokenizer, [parse_anchors(t)[0] for t in TEXTS], 2.0)
    assert torch.equal(no_anchors.input_ids, inputs.input_ids)
    assert run(model, inputs, none, **options) == plain and shapes == cost


def test_1_only_guided_rows_have_a_second_stream():
    model, tokenizer = double("llama")
    shapes = forwards(model)
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, [1.5, 1.0, 2.0, 2.0])
    found = run(model, inputs, spa, n=3, num_return_sequences=2, **WARM)
    width = inputs.input_ids.shape[1]
    # prompts 0 and 3, each read once for both of its samples
    assert shapes == [(8, width), (2, width), (8, 1), (4, 1), (8, 1), (4, 1)]
    plain = run(model, inputs, None, n=3, num_return_sequences=2, **WARM)
    assert found[2:6] == plain[2:6] and found != plain


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("options", [GREEDY, WARM])
def test_2_omega_zero_is_generation_from_the_masked_prompt(arch, options):
    model, tokenizer = double(arch)
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, 0.0)
    found = run(model, inputs, spa, **options)
    masked = inputs.input_ids.clone()
    for row, text in enumerate(TEXTS):
        ids = by_hand(text)[1]
        masked[row, -len(ids) :] = torch.tensor(ids)
    expected = run(model, {"input_ids": masked, "attention_mask": inputs.attention_mask}, None, **options)
    assert found == expected != run(model, inputs, None, **options)


def test_4_only_the_tagged_occurrence_is_masked():
    model, tokenizer = double("llama")
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, 2.0)
    for row, text in enumerate(TEXTS):
        clean, masked = by_hand(text)
        padding = [257] * (inputs.input_ids.shape[1] - len(clean))
        assert inputs.input_ids[row].tolist() == padding + clean
        assert inputs.attention_mask[row].tolist() == [0] * len(padding) + [1] * len(clean)
        assert spa.second.masked[row].tolist() == padding + masked
    other = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, 2.0, mask_token="<|endoftext|>")[1]
    assert torch.equal(other.second.masked == 256, spa.second.masked == MASK)


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("options", [GREEDY, WARM | {"num_return_sequences": 3}, {"num_beams": 4}])
def test_5_cached_logits_equal_an_uncached_recompute(arch, options):
    """The second stream's at every step, to float64's precision, left-padded beside others; and only new tokens are read."""
    model, tokenizer = double(arch)
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, OMEGAS)
    reference, seen = Recompute(model, TEXTS, OMEGAS), []
    whole, logits = spa.__call__, spa.second.logits

    class Spy(LogitsProcessor):
        def __call__(self, input_ids, scores):
            spa.second.logits = lambda *args: seen.append((input_ids, logits(*args))) or seen[-1][1]
            return whole(input_ids, scores)

    shapes = forwards(model)
    run(model, inputs, Spy(), **options)
    assert [width for _, width in shapes] == [inputs.input_ids.shape[1]] * 2 + [1] * 2 * (NEW - 1)
    assert len(seen) == NEW
    with torch.no_grad():
        for input_ids, second in seen:
            guided = torch.arange(len(input_ids)) // (len(input_ids) // 4) != 2
            torch.testing.assert_close(second, reference.second(input_ids)[guided], rtol=1e-9, atol=1e-9)


@ROTARY_AND_ABSOLUTE
def test_6_rows_do_not_depend_on_batch_mates(arch):
    """Own anchors, own ω, own length, early stop."""
    model, tokenizer = double(arch)
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, OMEGAS)
    ends = {"eos_token_id": list(range(0, 24)), **GREEDY}
    together = run(model, inputs, spa, n=40, **ends)
    lengths = set()
    for text, omega, row in zip(TEXTS, OMEGAS, together, strict=True):
        alone = run(model, *SPALogitsProcessor.from_texts(model, tokenizer, text, omega), n=40, **ends)[0]
        assert row[: len(alone)] == alone and set(row[len(alone) :]) <= {257}
        lengths.add(len(alone))
    assert len(lengths) > 1


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize(
    "options",
    [GREEDY, WARM | {"num_return_sequences": 3}, {"num_beams": 4, "num_return_sequences": 4}, WARM | {"num_beams": 3}],
)
@pytest.mark.parametrize("ends", [{}, {"eos_token_id": list(range(0, 24))}])
def test_7_second_streams_follow_their_hypotheses(arch, options, ends):
    """The tokens, and under beams the scores, are those with the second stream recomputed from the definition."""
    model, tokenizer = double(arch)
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, OMEGAS)
    options = options | ends | {"return_dict_in_generate": True, "output_scores": True}
    found = run(model, inputs, spa, **options)
    expected = run(model, inputs, Recompute(model, TEXTS, OMEGAS), **options)
    assert torch.equal(found.sequences, expected.sequences)
    if "num_beams" in options:
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores)


@ROTARY_AND_ABSOLUTE
def test_7_beams_against_a_beam_search_by_hand(arch):
    """Scores of hypotheses are sums of log-probabilities of the mixture, normalised at every token."""
    model, tokenizer = double(arch)
    beams, n, omega = 4, 8, 1.8
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS[:2], omega)
    options = {
        "num_beams": beams,
        "num_return_sequences": beams,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    found = run(model, inputs, spa, n=n, length_penalty=0.0, **options)
    reordered = False
    for number, text in enumerate(TEXTS[:2]):
        clean, masked = by_hand(text)
        hypotheses = [(0.0, [])]
        for _ in range(n):
            grown = []
            for parent, (score, new) in enumerate(hypotheses):
                with torch.no_grad():
                    both = model(input_ids=torch.tensor([clean + new, masked + new])).logits[:, -1]
                log_probabilities = (omega * both[0] + (1 - omega) * both[1]).log_softmax(-1)
                best = log_probabilities.topk(beams)
                grown += [(score + float(v), new + [int(i)], parent) for v, i in zip(*best, strict=True)]
            grown = sorted(grown, key=lambda one: -one[0])[:beams]
            reordered |= [parent for *_, parent in grown] != list(range(len(grown)))
            hypotheses = [(score, new) for score, new, _ in grown]
        rows = slice(number * beams, (number + 1) * beams)
        assert found.sequences[rows, -n:].tolist() == [new for _, new in hypotheses]
        expected = torch.tensor([score for score, _ in hypotheses])
        torch.testing.assert_close(found.sequences_scores[rows], expected, rtol=1e-4, atol=1e-4)
    assert reordered


@pytest.mark.parametrize("options", [GREEDY, WARM, {"num_beams": 3}])
def test_8_banned_tokens_stay_banned(options):
    model, tokenizer = double("llama_gqa")
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, -3.0)
    banned = sorted({token for row in run(model, inputs, spa, **options) for token in row})
    options = options | {"suppress_tokens": banned, "return_dict_in_generate": True, "output_scores": True}
    found = run(model, inputs, spa, **options)
    assert not torch.isin(found.sequences[:, -NEW:], torch.tensor(banned)).any()
    for scores in found.scores:
        assert torch.isneginf(scores[:, banned]).all() and not torch.isnan(scores).any()


@pytest.mark.parametrize("options", [GREEDY, WARM | {"num_return_sequences": 2}, {"num_beams": 3}])
def test_10_a_repeated_call_gives_the_same(options):
    model, tokenizer = double("gpt2")
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, OMEGAS)
    first = run(model, inputs, spa, **options)
    assert run(model, inputs, spa, **options) == first
    run(model, inputs, spa, n=3, num_return_sequences=4, **WARM)  # another number of rows, and cut short
    other = SPALogitsProcessor.from_texts(model, tokenizer, ["something <anchor>else</anchor>"])[0]
    with pytest.raises(UserError, match="other prompts"):
        run(model, other, spa)
    assert run(model, inputs, spa, **options) == first


def test_10_an_interrupted_step_leaves_nothing_behind():
    """Out of memory in the second layer, when the first has its token in the cache: the same step again is right."""
    model, tokenizer = double("llama")
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, OMEGAS)
    reference = Recompute(model, TEXTS, OMEGAS)
    scores = torch.randn(4, 259, generator=torch.Generator().manual_seed(0))
    longer = torch.cat([inputs.input_ids, torch.tensor([[5], [6], [7], [8]])], dim=1)
    spa(inputs.input_ids, scores)

    def out_of_memory(*args):
        raise RuntimeError("out of memory")

    hook = model.model.layers[1].register_forward_pre_hook(out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        spa(longer, scores)
    hook.remove()
    with torch.no_grad():
        torch.testing.assert_close(spa(longer, scores), reference(longer, scores), rtol=1e-5, atol=1e-5)


@ROTARY_AND_ABSOLUTE
def test_the_same_text_with_other_anchors(arch):
    """Hypotheses of two prompts may be the same tokens: each goes on from its own masked prompt."""
    model, tokenizer = double(arch)
    texts = ["<anchor>sum</anchor> of the numbers", "sum of the <anchor>numbers</anchor>"]
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, texts, 1.02)
    reference = Recompute(model, texts, [1.02, 1.02])
    assert run(model, inputs, spa, num_beams=4) == run(model, inputs, reference, num_beams=4)


def test_any_order_of_steps_is_read_right():
    """Rows that go on from no row of the call before, or go back, as in assisted generation."""
    model, tokenizer = double("llama_gqa")
    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, TEXTS[:2], 1.5)
    reference = Recompute(model, TEXTS[:2], [1.5, 1.5])
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 259, generator=generator)
    rows = inputs.input_ids.repeat_interleave(2, dim=0)
    with torch.no_grad():
        for length in (0, 1, 2, 5, 6, 3, 4, 0, 1):
            new = torch.randint(0, 250, (4, length), generator=torch.Generator().manual_seed(length // 3))
            ids = torch.cat([rows, new], dim=1)
            torch.testing.assert_close(spa(ids, scores), reference(ids, scores), rtol=1e-5, atol=1e-5)
        fewer = torch.cat([ids[[1, 3]], torch.tensor([[7], [8]])], dim=1)  # one row of each prompt goes on
        torch.testing.assert_close(spa(fewer, scores[:2]), reference(fewer, scores[:2]), rtol=1e-5, atol=1e-5)


@ROTARY_AND_ABSOLUTE
def test_greedy_equals_the_engine(arch):
    backbone = tiny_backbone(arch)
    backbone.model.double()
    prompts = [(str(number), anchored_prompt(text)) for number, text in enumerate(TEXTS)]
    guidance = [Guidance(Masked(("anchor",)), omega) for omega in OMEGAS]
    engine = generate(backbone, prompts, 1, Sampling(temperature=0, max_new_tokens=30), guidance=guidance)
    inputs, spa = SPALogitsProcessor.from_texts(backbone.model, backbone.tokenizer, TEXTS, OMEGAS)
    rows = run(backbone.model, inputs, spa, n=30, eos_token_id=256, **GREEDY)
    assert [row[0].raw for row in engine] == [backbone.decode(row) for row in rows]


@ROTARY_AND_ABSOLUTE
def test_9_a_prefix_in_peft_is_in_both_streams(arch, tmp_path):
    """As in the engine, whose tests compare it with the definition."""
    backbone = tiny_backbone(arch)
    prefix = random_prefix(backbone)
    save_prefix(prefix, tmp_path, backbone)
    prompts = [(str(number), anchored_prompt(text)) for number, text in enumerate(TEXTS)]
    guidance = [Guidance(Masked(("anchor",)), omega) for omega in OMEGAS]
    engine = generate(
        backbone, prompts, 1, Sampling(temperature=0, max_new_tokens=20), prefix=prefix, guidance=guidance
    )
    model = peft.PeftModel.from_pretrained(tiny_model(arch), tmp_path).eval()
    inputs, spa = SPALogitsProcessor.from_texts(model, backbone.tokenizer, TEXTS, OMEGAS)
    rows = run(model, inputs, spa, n=20, eos_token_id=256, **GREEDY)
    assert [row[0].raw for row in engine] == [backbone.decode(row) for row in rows]


def test_other_adapters_of_peft():
    model, tokenizer = double("llama")
    lora = peft.get_peft_model(
        model, peft.LoraConfig(init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    ).eval()
    inputs, spa = SPALogitsProcessor.from_texts(lora, tokenizer, TEXTS, 1.6)
    assert run(lora, inputs, spa, **GREEDY) == run(lora, inputs, Recompute(lora, TEXTS, [1.6] * 4), **GREEDY)
    soft = peft.get_peft_model(
        tiny_model("llama"), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    with pytest.raises(UserError, match="type PROMPT_TUNING has no second stream"):
        SPALogitsProcessor.from_texts(soft, tokenizer, TEXTS)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),  # ALiBi, takes no positions
        ("opt", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),  # no cache of keys and values
        ("mistral", {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "num_key_value_heads": 2, "sliding_window": 8}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [GREEDY, {"num_beams": 3}])
def test_models_that_the_engine_does_not_know(kind, values, options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=259, eos_token_id=256, bos_token_id=256, pad_token_id=257, **values)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn_like(parameter) * 1.5 / parameter.shape[-1] ** 0.5)
    inputs, spa = SPALogitsProcessor.from_texts(model, tiny_tokenizer(), TEXTS, OMEGAS)
    assert run(model, inputs, spa, **options) == run(model, inputs, Recompute(model, TEXTS, OMEGAS), **options)


def test_bfloat16_runs():
    model = tiny_model("llama").bfloat16().eval()
    inputs, spa = SPALogitsProcessor.from_texts(model, tiny_tokenizer(), TEXTS, OMEGAS)
    assert len(run(model, inputs, spa, **GREEDY)[0]) == NEW


def test_mistakes_are_explained():
    model, tokenizer = double("llama")
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(UserError, match="differ in shape"):
        SPALogitsProcessor(model, ids, ids[:, 1:])
    with pytest.raises(UserError, match="not padded on the left"):
        SPALogitsProcessor(model, ids, ids, attention_mask=torch.tensor([[1, 1, 0]]))
    for omega in ([1.0, 2.0], float("nan")):
        with pytest.raises(UserError, match="one finite number, or one per prompt"):
            SPALogitsProcessor(model, ids, ids, omega)
    for texts, message in (([], "no texts"), ([""], "no tokens"), ("a <anchor>b", "never closed")):
        with pytest.raises(UserError, match=message):
            SPALogitsProcessor.from_texts(model, tokenizer, texts)
    with pytest.raises(UserError, match="'<mask>' is not one token"):
        SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, mask_token="<mask>")
    tokenizer.unk_token = tokenizer.pad_token = None
    with pytest.raises(UserError, match="no token to mask with"):
        SPALogitsProcessor.from_texts(model, tokenizer, TEXTS)
    assert SPALogitsProcessor.from_texts(model, tokenizer, TEXTS, mask_token="<unk>")[1].guided.tolist() == [1, 1, 0, 1]
