"""Text to tokens and back: completions keep their spaces with every kind of tokenizer."""

import pytest
from tiny_models import tiny_backbone, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cptlab.backbone import Backbone

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
