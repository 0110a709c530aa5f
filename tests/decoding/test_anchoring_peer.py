"""Against the official package, `anchoring` 0.1.0, in the mode of the paper: no weighting by probability, no attention
mask. It masks by replacing strings: where that keeps positions its tokens are ours, where it does not they are not.
"""

import pytest
import torch
from anchoring import SPALogitsProcessor as TheirProcessor
from anchoring import spa_tokenize
from tiny_models import tiny_backbone
from transformers import LogitsProcessorList

from cptlab.decoding import Guidance, Sampling, generate
from cptlab.decoding.anchors import anchored_prompt
from cptlab.decoding.logits_processor import SPALogitsProcessor
from cptlab.decoding.negatives.masked import Masked

NEW = 24
# Each anchor is one token that stands nowhere else, so that one mask token in its place moves nothing.
EXACT = [
    "Add <anchor>3</anchor> to the number.\ndef add(a, b):",
    "# <anchor>x</anchor> plus <anchor>y</anchor>, minus <anchor>z</anchor>\n",
]
SHIFTED = "Sort in <anchor>descending</anchor> order.\ndef sort(a):"  # ten tokens become one
EVERYWHERE = "a + <anchor>a</anchor> + a = "  # the other two are masked as well
BOTH_ARCHITECTURES = pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])


def double(arch):
    backbone = tiny_backbone(arch)
    backbone.model.double()
    backbone.eos_ids = frozenset()
    backbone.tokenizer.mask_token = "<unk>"  # else it writes the nine letters MASKTOKEN
    return backbone


def continued(backbone, inputs, processor):
    options = {"do_sample": False, "max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 257}
    output = backbone.model.generate(**inputs, logits_processor=LogitsProcessorList([processor]), **options)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def theirs(backbone, text, omega):
    """Their tokens, and the ids of their second prompt."""
    clean, masked, mask_token = spa_tokenize(text, [], backbone.tokenizer, backbone.device)
    paper = {"modulated_by_prob": False, "use_attention_mask": False}
    processor = TheirProcessor(backbone.model, masked, mask_token, omega, tokenizer=backbone.tokenizer, **paper)
    return continued(backbone, {"input_ids": clean, "attention_mask": torch.ones_like(clean)}, processor), masked


def ours(backbone, text, omega):
    """Our tokens, and the ids of our second prompt."""
    inputs, processor = SPALogitsProcessor.from_texts(backbone.model, backbone.tokenizer, text, omega)
    return continued(backbone, inputs, processor), processor.second.masked


@BOTH_ARCHITECTURES
@pytest.mark.parametrize("omega", [-0.5, 0.0, 1.0, 1.28, 3.0])
@pytest.mark.parametrize("text", EXACT)
def test_same_tokens_where_its_masking_keeps_positions(arch, omega, text):
    backbone = double(arch)
    tokens, masked = theirs(backbone, text, omega)
    assert torch.equal(masked, ours(backbone, text, omega)[1])
    assert tokens == ours(backbone, text, omega)[0]
    guidance = Guidance(Masked(("anchor",)), omega)
    sampling = Sampling(temperature=0, max_new_tokens=NEW)
    ((completion,),) = generate(backbone, [("t", anchored_prompt(text))], 1, sampling, guidance=guidance)
    assert completion.raw == backbone.decode(tokens)


@BOTH_ARCHITECTURES
@pytest.mark.parametrize(("text", "same_length"), [(SHIFTED, False), (EVERYWHERE, True)])
def test_other_tokens_where_it_moves_the_prompt_or_masks_every_occurrence(arch, text, same_length):
    """The masked prompt is the whole difference: each side's tokens are those of its own, read without a cache."""
    backbone = double(arch)
    tokens, masked = theirs(backbone, text, 3.0)
    own_tokens, own_masked = ours(backbone, text, 3.0)
    assert (masked.shape == own_masked.shape) == same_length
    assert int((own_masked == 258).sum()) == (1 if same_length else len("descending"))
    assert int((masked == 258).sum()) == (3 if same_length else 1)
    assert tokens != own_tokens
    assert tokens == recomputed(backbone, text, masked, 3.0)
    assert own_tokens == recomputed(backbone, text, own_masked, 3.0)


@torch.no_grad()
def recomputed(backbone, text, masked, omega):
    """Greedy tokens of the mixture by reading both prompts whole at every token."""
    clean, new = backbone.encode_prompt(anchored_prompt(text).text), []
    for _ in range(NEW):
        streams = [torch.tensor([clean + new]), torch.tensor([masked[0].tolist() + new])]
        first, second = (backbone.model(input_ids=ids).logits[0, -1] for ids in streams)
        new.append(int((omega * first + (1 - omega) * second).argmax()))
    return new
