"""Text to tokens and back: completions keep their spaces with every kind of tokenizer."""

import pytest
from tiny_models import tiny_backbone, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cptlab.backbone import Backbone, load_backbone
from cptlab.decoding.negatives.masked import masked_ids
from cptlab.errors import UserError
from cptlab.records import Prompt, Span

COMPLETIONS = ["    return x\n", "return x", " x", "\n\n    y = 1\n", "", "'é→'", "    \n  x"]


def sentencepiece_like(style):
    """Bytes and a few pieces, a space put before the text as Code Llama's tokenizer does, and `<s>` before a prompt."""
    byte_pieces = [f"<0x{i:02X}>" for i in range(256)]
    pieces = ["<unk>", "<s>", "</s>", *byte_pieces, *"▁abcdefgnrtuxyz=1(),:'", "▁▁", "▁▁▁▁"]
    vocabulary, merges = {piece: i for i, piece in enumerate(pieces)}, [("▁", "▁"), ("▁▁", "▁▁")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if style == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "bytes": tiny_tokenizer,
    "legacy": lambda: sentencepiece_like("legacy"),
    "metaspace": lambda: sentencepiece_like("metaspace"),
}


@pytest.fixture(params=TOKENIZERS)
def backbone(request):
    tokenizer = TOKENIZERS[request.param]()
    return Backbone(tiny_model("llama_gqa", vocab_size=300), tokenizer, "text")


@pytest.mark.parametrize("text", COMPLETIONS)
def test_a_completion_comes_back_as_it_was(backbone, text):
    ids = backbone.encode_completion(text)
    assert backbone.decode(ids) == text
    assert not set(ids) & set(backbone.tokenizer.all_special_ids)


@pytest.mark.parametrize("text", COMPLETIONS)
def test_prompt_and_completion_are_tokenised_as_one_text(backbone, text):
    prompt = "def f(x):\n"
    whole = backbone.encode_prompt(prompt + text)
    assert backbone.encode_prompt(prompt) + backbone.encode_completion(text) == whole


def test_a_prompt_gets_the_tokenizers_special_tokens():
    backbone = Backbone(tiny_model("llama_gqa", vocab_size=300), sentencepiece_like("legacy"), "text")
    assert backbone.encode_prompt("x")[0] == 1 and backbone.encode_completion("x")[0] != 1


def test_special_tokens_are_not_part_of_the_text():
    backbone = tiny_backbone("llama")
    assert backbone.decode([*backbone.encode_completion("x = 1"), backbone.eos_id]) == "x = 1"


def test_every_end_token_counts():
    model = tiny_model("llama")
    model.generation_config.eos_token_id = [5, 256]
    assert Backbone(model, tiny_tokenizer(), "x").eos_ids == {5, 256}


PROGRAM = "def f(x):\n    if x:\n\treturn 'é → 日本 🙂'\n\n\n    return  x\n"


def changed(prefix_space=False, template=None, normalizer=None, pre_tokenizer=None):
    """The tokenizer of bytes, with one habit of other tokenizers."""
    fast = tiny_tokenizer(("<|endoftext|>", "<pad>", "<unk>", "<s>"))
    inner = fast.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=prefix_space)
    if template:
        ids = [(token, inner.token_to_id(token)) for token in ("<s>", "<|endoftext|>")]
        inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    if normalizer:
        inner.normalizer = normalizer
    if pre_tokenizer:
        inner.pre_tokenizer = pre_tokenizer
    return fast


def text_tokens(**habits):
    return Backbone(tiny_model("llama_gqa", vocab_size=300), changed(**habits), "text")


def test_a_prompt_does_not_end_in_the_token_that_ends_a_text():
    backbone = text_tokens(template="<s> $A <|endoftext|>")
    backbone.text_tokens.check("text")
    assert backbone.tokenizer(PROGRAM).input_ids[-1] == backbone.eos_id
    ids = backbone.encode_prompt(PROGRAM)
    assert ids == backbone.tokenizer(PROGRAM).input_ids[:-1]
    assert backbone.encode_prompt(PROGRAM[:9]) + backbone.encode_completion(PROGRAM[9:]) == ids


def test_a_prompt_is_opened_once():
    """A template that begins with the token that the tokenizer puts before every text."""
    backbone = text_tokens(template="<s> $A")
    backbone.text_tokens.check("text")
    once = backbone.encode_prompt("[INST] sort")
    assert once[0] == backbone.tokenizer.convert_tokens_to_ids("<s>") != once[1]
    assert backbone.encode_prompt("<s>[INST] sort") == once


@pytest.mark.parametrize("template", ["<s> $A", "<s> $A <|endoftext|>"])
def test_masking_keeps_to_the_tokens_of_the_prompt(template):
    backbone = text_tokens(template=template)
    for text in ("sort it", "<s>sort it"):
        at = text.index("sort")
        masked = masked_ids(backbone, Prompt(text, spans=(Span("nl", at, at + 4),)), ["nl"])
        plain = backbone.encode_prompt(text)
        assert [a != b for a, b in zip(masked, plain, strict=True)] == [False] + [True] * 4 + [False] * 3


@pytest.mark.parametrize("text", [*COMPLETIONS, PROGRAM, "\tx", "\n", "  "])
def test_a_space_before_every_text_is_not_before_a_completion(text):
    backbone = text_tokens(prefix_space=True)
    backbone.text_tokens.check("text")
    assert backbone.tokenizer.decode(backbone.tokenizer("x").input_ids) == " x"
    assert backbone.decode(backbone.encode_completion(text)) == text


@pytest.mark.parametrize(
    "habits",
    [
        {"normalizer": normalizers.Lowercase()},
        {"normalizer": normalizers.Strip()},
        {"normalizer": normalizers.Replace("\t", "    ")},
        {"normalizer": normalizers.NFKD()},
        {"normalizer": normalizers.Replace("\n", " ")},
        {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False)])},
    ],
    ids=["case", "ends", "tabs", "non-ASCII", "lines", "spaces"],
)
def test_a_tokenizer_that_changes_texts_is_refused_at_load(habits, tmp_path):
    tiny_model("llama_gqa", vocab_size=300).save_pretrained(tmp_path)
    changed().save_pretrained(tmp_path)
    load_backbone(str(tmp_path))
    changed(**habits).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="The tokenizer of .* changes texts: .* comes back as .* Use a model whose"):
        load_backbone(str(tmp_path))
