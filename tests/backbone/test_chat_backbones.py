"""Backbones that are asked as chat models, and the settings that decide on it."""

from __future__ import annotations

import dataclasses

import pytest

from cptlab.adapters import Policy
from cptlab.backbone import load_backbone
from cptlab.commands.shared.systems import prompted
from cptlab.decoding import Guidance, Sampling, generate
from cptlab.decoding.negatives.masked import Masked
from cptlab.errors import UserError
from cptlab.kata.benchmark import build
from cptlab.settings.config_source import compose_config
from cptlab.settings.entry import prepare
from cptlab.systems.decoding import Decoding
from cptlab.systems.loading import LoadedSystem
from tests.helpers.tiny_models import tiny_model, tiny_tokenizer

CHATML = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
TASK = build()[0][0]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat model")
    tiny_model("qwen2", max_position_embeddings=2048).save_pretrained(path)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(path)
    return str(path)


def shown(backbone):
    return LoadedSystem("base", Policy(backbone), Decoding(Sampling())).shown_prompt(TASK)


def test_a_chat_template_decides_on_its_own(directory):
    chat = load_backbone(directory)
    assert shown(chat).text.startswith("<|user|>\nPlease provide") and shown(chat).text.endswith("```python\n")
    assert shown(load_backbone(directory, prompting="chat")) == shown(chat)
    base = load_backbone(directory, prompting="base")
    assert shown(base) == TASK.prompt and base.prompt_form is None != chat.prompt_form
    own = load_backbone(directory, prompt_template="{nl}\n{code}")
    assert shown(own).text.startswith(TASK.prompt.text[3:20]) and own.prompt_form == "{nl}\n{code}"
    with pytest.raises(UserError, match="Leave one of the two out"):
        load_backbone(directory, prompting="chat", prompt_template="{code}")
    with pytest.raises(UserError, match="has no chat template. Set prompting=base"):
        load_backbone("kata-lm", prompting="chat")


def test_anchors_of_a_chat_prompt_mask_the_same_text_as_those_of_the_plain_prompt(directory):
    backbone = load_backbone(directory)
    for name in ("nl", "tests", "code"):
        for prompt in (shown(backbone), TASK.prompt):
            second = Guidance(Masked((name,)), 1.3).stream(backbone, prompt, False)
            ids = backbone.encode_prompt(prompt.text)
            masked = [i for i, (a, b) in enumerate(zip(ids, second.ids, strict=True)) if a != b]
            texts = [prompt.text[span.start : span.end] for span in prompt.spans if span.name == name]
            assert backbone.decode([ids[i] for i in masked]) == "".join(texts)


def test_an_answer_ends_at_the_stop_texts_of_its_own_prompt(directory):
    """Two prompts in one batch: the one without stop texts goes on."""
    backbone = load_backbone(directory)
    free = dataclasses.replace(shown(backbone), stops=(), closing="")
    sampling = Sampling(temperature=1.0, max_new_tokens=60, heal=False)
    ((whole,),) = generate(backbone, [("t", free)], 1, sampling, seed=3)
    stop = whole.raw[20:22]
    stopped = dataclasses.replace(free, stops=(stop,))
    (one,), (other,) = generate(backbone, [("t", stopped), ("t", free)], 1, sampling, seed=3)
    assert other.raw == whole.raw and one.finished
    assert one.program == whole.raw[: whole.raw.find(stop)] and one.tokens < whole.tokens


def test_the_limit_of_new_tokens_is_the_prompts_own_unless_another_is_set(directory):
    backbone = load_backbone(directory, prompting="base")
    short, long = (dataclasses.replace(TASK.prompt, stops=(), max_new_tokens=limit) for limit in (9, 30))
    for limit, expected in ((None, (9, 30)), (12, (12, 12))):
        sampling = Sampling(temperature=1.0, max_new_tokens=limit, heal=False, function_end=False)
        rows = generate(backbone, [("a", short), ("b", long)], 1, sampling)
        assert tuple(row[0].tokens for row in rows) == expected


def test_the_setting_prompting_reaches_the_backbone_and_greedy_decoding_draws_one_program():
    config = compose_config("train", "prompting=base", "print_config=false")
    prepare(config)
    assert config.backbone.prompting == "base"
    config = compose_config("evaluate", "prompting=chat", "decoding=greedy", "print_config=false")
    prepare(config)
    assert config.backbone is None and config.n == 1
    assert prompted(compose_config("train").backbone, config.prompting).prompting == "chat"
    for overrides, n in (([], 20), (["decoding=greedy", "n=3"], 3), (["decoding=spa"], 20)):
        config = compose_config("omega" if "spa" in str(overrides) else "evaluate", "print_config=false", *overrides)
        prepare(config)
        assert config.n == n
