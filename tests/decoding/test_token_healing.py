"""Token healing on tokenizers of every kind that code models have, and on kata-lm's own greedy programs."""

import asyncio
import dataclasses
import gc
import json
import random
import weakref
from pathlib import Path

import pytest
import torch
from test_decoding import double
from tiny_models import tiny_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre
from transformers import PreTrainedTokenizerFast

from cptlab.backbone import Backbone, load_backbone
from cptlab.decoding import Sampling, generate
from cptlab.decoding.negatives.masked import masked_ids
from cptlab.decoding.token_healing import MAX_DROPPED, Healed, get_healer, token_bytes
from cptlab.kata.benchmark import build
from cptlab.records import Prompt
from cptlab.tasks.humaneval import humaneval

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TEXT = '''"""For a string, repeat each character twice, then convert it to upper case, and return the result.

>>> solve('ago ice')
'AAGGOO  IICCEE'
"""
def solve(text):
    text = "".join(char * 2 for char in text)
    return text.upper()


class Été:
    """Naïve 😀 text: 日本語."""

    def __init__(self, values=(1234, 56.78)):
        self.values = [v for v in values if v not in {"a", 'b'}]  # keep

        if not self.values:
            raise ValueError("empty")
'''


def corpus():
    files = sorted(Path(asyncio.__file__).parent.glob("*.py"))  # code that changes with Python alone
    return [path.read_text(encoding="utf-8") for path in files] + [task.canonical_solution for task in build()[0][:200]]


def byte_level(pre_tokenizer, added=()):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    alphabet = pre.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, special_tokens=["<e>"], show_progress=False),
    )
    tokenizer.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", unk_token="<e>")


def sentencepiece(metaspace):
    """As Llama's: no token holds a newline, bytes stand for what is unknown, a word begins a text, <s> opens it."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre.Split(Regex(r"▁*[^▁\n]+|▁+|\n"), "isolated")
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=3000, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    special = ["<unk>", "<s>", "</s>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *(p for p in model["vocab"] if p != "\n")]
    merges = [tuple(merge) for merge in model["merges"]]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


GPT2 = pre.ByteLevel(add_prefix_space=False)
KINDS = {
    "gpt2": lambda: byte_level(GPT2),
    "qwen": lambda: byte_level(
        pre.Sequence([pre.Split(Regex(QWEN), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    ),
    "starcoder": lambda: byte_level(pre.Sequence([pre.Digits(individual_digits=True), GPT2])),
    "codegen": lambda: byte_level(GPT2, [" " * n for n in range(31, 1, -1)]),
    "llama": lambda: sentencepiece(False),
    "metaspace": lambda: sentencepiece(True),
}


@pytest.fixture(scope="module", params=KINDS)
def backbone(request):
    tokenizer = KINDS[request.param]()
    return Backbone(tiny_model("llama", vocab_size=len(tokenizer)), tokenizer, request.param)


def test_bytes_of_tokens_make_the_text(backbone):
    texts = token_bytes(backbone.tokenizer)
    ids = backbone.encode_prompt(TEXT)
    joined = b"".join(texts[token] or b"" for token in ids).decode()
    assert joined.removeprefix(" " if backbone.text_tokens.opening else "") == TEXT
    assert all(texts[token] is None for token in backbone.tokenizer.all_special_ids)


def test_a_prompt_cut_anywhere_can_be_continued_in_the_tokens_of_the_whole_text(backbone):
    """The healed prompt is a beginning of the text's own tokens, and these are allowed one after the other."""
    healer, ids = get_healer(backbone), backbone.encode_prompt(TEXT)
    unhealed, lost = 0, []
    for cut in range(4, len(TEXT)):  # a text's first token cannot be taken away
        healed = healer.heal(TEXT[:cut])
        assert healed.whole == backbone.encode_prompt(TEXT[:cut]) and len(healed.dropped) <= MAX_DROPPED
        assert TEXT[:cut].endswith(healed.text) and bool(healed.text) == bool(healed.dropped) == bool(healed.rest)
        unhealed += ids[: len(healed.whole)] != healed.whole
        rest, position = healed.rest, len(healed.ids)
        while rest and ids[position] in healer.allowed(rest):
            rest, position = healer.after(rest, ids[position]), position + 1
        if rest or ids[: len(healed.ids)] != healed.ids:
            lost.append((TEXT[:cut][-20:], healed.text))
    assert unhealed > len(TEXT) / 2
    assert len(lost) < 0.01 * len(TEXT), lost  # punctuation that is divided anew: seen on none of these to date


def test_what_is_allowed_writes_the_text_again(backbone):
    healer, rng = get_healer(backbone), random.Random(2)
    vocabulary = len(token_bytes(backbone.tokenizer))
    for cut in rng.sample(range(9, len(TEXT)), 60):
        healed = healer.heal(TEXT[:cut])
        rest, ids = healed.rest, []
        while rest:
            logits = healer.restrict(torch.randn(2, vocabulary), [rest, None])
            assert not torch.isneginf(logits[1]).any()
            finite = (~torch.isneginf(logits[0])).nonzero()[:, 0]
            assert sorted(finite.tolist()) == sorted(set(healer.allowed(rest).tolist()))
            ids.append(int(rng.choice(finite)))
            before, rest = rest, healer.after(rest, ids[-1])
            assert rest is None or before.text.endswith(rest.text)
            special = backbone.tokenizer.all_special_ids[0]
            assert healer.after(before, special) == before
        assert backbone.decode(ids).startswith(healed.text)


@pytest.mark.data
def test_humaneval_prompts_and_their_references_agree(backbone, data_dir):
    healer, unhealed, tasks = get_healer(backbone), 0, humaneval(str(data_dir)).tasks[::4]
    for task in tasks:
        healed, ids = healer.heal(task.prompt.text), backbone.encode_prompt(task.canonical_solution)
        assert ids[: len(healed.ids)] == healed.ids
        unhealed += ids[: len(healed.whole)] != healed.whole
    assert unhealed == len(tasks) or backbone.name != "starcoder"  # there a newline and what is behind it are one token


def test_a_boundary_stays():
    """kata's prompts end where a token ends whatever follows, and bytes are never more than one token."""
    kata, texts = load_backbone("kata-lm"), [task.prompt.text for task in build()[0][:100]]
    for backbone in (kata, double("llama_gqa")):
        for text in texts:
            assert get_healer(backbone).heal(text) == Healed(backbone.encode_prompt(text), [], None, backbone.mask_id)


def test_chat_markers_stay(backbone):
    marker = backbone.tokenizer.all_special_tokens[-1]
    text = "def solve(words):\n" + marker
    assert get_healer(backbone).heal(text).rest is None
    healed = get_healer(backbone).heal(text + "\n    retu")
    assert healed.ids[: len(backbone.encode_prompt(text))] == backbone.encode_prompt(text)


def test_other_tokenizers_are_not_healed():
    tokenizer = Tokenizer(models.WordLevel({"def": 0, "defined": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre.Whitespace()
    backbone = Backbone(
        tiny_model("llama", vocab_size=300),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"),
        "words",
    )
    assert get_healer(backbone).heal("def") == Healed([0], [], None, 2)


def test_second_streams_lose_the_same_tokens():
    backbone = load_backbone("kata-lm")
    task = next(task for task in build()[0] if task.kind == "call")
    prompt = dataclasses.replace(task.prompt, text=task.prompt.text + "\n", code=task.prompt.code + "\n")
    healed = get_healer(backbone).heal(prompt.text)
    assert healed.text == "\n" and len(healed.dropped) == 1
    masked = masked_ids(backbone, prompt, ["nl", "code"])
    assert len(masked) == len(healed.whole) and healed.shorten(masked) == masked[:-1]
    assert healed.shorten([backbone.mask_id] * 9) == [backbone.mask_id] * 8
    assert healed.shorten(backbone.encode_prompt("x\n")) == backbone.encode_prompt("x")
    assert healed.shorten(backbone.encode_prompt("x")) is None and healed.shorten(healed.dropped) is None


def greedy(backbone, healer, ids, rest, count):
    """`count` tokens behind what is to be written again, one row, and their text; float64."""
    row, new = torch.tensor([ids]), []
    logits, state = backbone.prefill(row, torch.ones_like(row))
    while count:
        count -= rest is None
        new.append(int(healer.restrict(logits, [rest]).argmax()))
        rest = healer.after(rest, new[-1])
        if new[-1] in backbone.eos_ids:
            break
        logits = backbone.step(torch.tensor(new[-1:]), state)
    return new, backbone.decode(new)


@pytest.mark.slow
def test_greedy_programs_go_on_as_if_uncut():
    """kata-lm's own greedy program, cut anywhere and healed, goes on as it did; unhealed it often does not."""
    backbone = load_backbone("kata-lm")
    backbone.model.double()
    healer, cuts, healed_same, unhealed_same = get_healer(backbone), 0, 0, 0
    for task in [task for task in build()[0] if task.kind == "call"][:2]:
        prompt = task.prompt.text
        program, text = greedy(backbone, healer, backbone.encode_prompt(prompt), None, 48)
        ids = backbone.encode_prompt(prompt) + [token for token in program if token not in backbone.eos_ids]
        assert backbone.encode_prompt(prompt + text) == ids
        for cut in range(1, len(text) - 20, 2):
            cuts += 1
            healed = healer.heal(prompt + text[:cut])
            new = greedy(backbone, healer, healed.ids, healed.rest, 4)[1]
            assert new.startswith(healed.text)
            healed_same += text.startswith((text[:cut] + new[len(healed.text) :])[: len(text)])
            new = greedy(backbone, healer, healed.whole, None, 4)[1]
            unhealed_same += text.startswith((text[:cut] + new)[: len(text)]) and bool(new)
    assert cuts > 30 and healed_same == cuts and unhealed_same < 0.7 * cuts


def test_kata_references_cut_anywhere_are_continued_in_the_tokenizers_tokens():
    backbone = load_backbone("kata-lm")
    healer, cuts, own, follows, unhealed_follows = get_healer(backbone), 0, 0, 0, 0
    for task in [task for task in build()[0] if task.kind == "call"][2:4]:
        whole = task.prompt.text + task.canonical_solution[len(task.prompt.code) :]
        for cut in range(len(task.prompt.text) + 1, len(whole), 2):
            cuts += 1
            healed = healer.heal(whole[:cut])
            ids, new = greedy(backbone, healer, healed.ids, healed.rest, 3)
            joined = whole[:cut] + new[len(healed.text) :]
            ids = [token for token in ids if token not in backbone.eos_ids]
            own += backbone.encode_prompt(joined) == healed.ids + ids
            follows += whole.startswith(joined)
            unhealed_follows += whole.startswith(whole[:cut] + greedy(backbone, healer, healed.whole, None, 3)[1])
    assert own >= 0.98 * cuts and follows > unhealed_follows + 0.2 * cuts


@pytest.mark.parametrize("written", [1, 3, 8, 12])
def test_the_engine_heals(written):
    """A prompt that goes on with the first characters of the greedy program has the rest of that program."""
    backbone, sampling = load_backbone("kata-lm"), Sampling(temperature=0, max_new_tokens=200)
    prompts = [(task.id, task.prompt) for task in build()[0] if task.kind == "call"][:8]
    plain = [row[0] for row in generate(backbone, prompts, 1, sampling)]
    kept = [i for i, completion in enumerate(plain) if completion.finished]
    parts = [(prompts[i][1].text, prompts[i][1].code, plain[i].raw[:written]) for i in kept]
    longer = [
        (prompts[i][0], Prompt(text + part, code + part)) for i, (text, code, part) in zip(kept, parts, strict=True)
    ]
    healed = [row[0] for row in generate(backbone, longer, 1, sampling)]
    assert len(kept) > 4 and [c.program for c in healed] == [plain[i].program for i in kept]
    assert [c.raw for c in healed] == [plain[i].raw[written:] for i in kept]
    unhealed = [row[0] for row in generate(backbone, longer, 1, dataclasses.replace(sampling, heal=False))]
    assert [c.program for c in unhealed] != [c.program for c in healed]


def test_a_backbone_is_not_kept_alive():
    backbone = double("llama_gqa")
    get_healer(backbone).heal("def")
    alive = weakref.ref(backbone)
    del backbone
    gc.collect()
    assert alive() is None


def test_texts_of_nothing(backbone):
    ids = backbone.encode_prompt("")
    assert get_healer(backbone).heal("") == Healed(ids, [], None, backbone.mask_id)
