"""What of serving needs no vLLM: heads of a rank, salts, the names that clients ask for, and what is refused."""

import json

import pytest
import torch
from run_commands import config
from tiny_models import ARCHITECTURES, MIXED, VOCAB, tiny_tokenizer
from transformers import AutoConfig

from cptlab.adapters import Prefix, save_prefix
from cptlab.backbone import PrefixShape
from cptlab.commands.serve import serve
from cptlab.errors import UserError
from cptlab.serving.checks import check_model
from cptlab.serving.served_prefix import ServedPrefix, find_prefix, load_served, prefix_of
from cptlab.serving.server import placeholder_id, salted


def served(kv_heads: int = 4, seed: int = 0, name: str = "tuned", layers: int = 2, length: int = 5) -> ServedPrefix:
    return ServedPrefix(name, Prefix(PrefixShape(layers, kv_heads, 8), length=length, seed=seed))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_hold_all_heads_once_and_in_order(ranks):
    one = served()
    for layer, whole in enumerate(one.prefix.key_values()):
        for kind in (0, 1):
            parts = [one.layer(layer, rank, ranks)[kind] for rank in range(ranks)]
            assert torch.equal(torch.cat(parts, dim=1).transpose(0, 1), whole[kind])


def test_with_fewer_heads_than_ranks_neighbours_share_a_head():
    one = served(kv_heads=2)
    (key, _) = one.prefix.key_values()[1]
    assert [one.layer(1, rank, 8)[0].shape for rank in range(8)] == [(5, 1, 8)] * 8
    assert [torch.equal(one.layer(1, rank, 8)[0][:, 0], key[rank // 4]) for rank in range(8)] == [True] * 8


def test_a_salt_names_the_content_of_a_prefix():
    one, same, other = served(), served(name="again"), served(seed=1)
    assert one.salt == same.salt != other.salt
    by_salt = {one.salt: one}
    assert prefix_of(one.salt, by_salt) is prefix_of(f"{one.salt}.mine", by_salt) is one
    assert prefix_of(None, by_salt) is prefix_of("mine", by_salt) is None
    with pytest.raises(UserError, match="names no prefix that is served"):
        prefix_of(other.salt, by_salt)
    assert len(one.salt) < 64 and not set(one.salt) & set("@/\\\0")  # what vLLM takes, with room for a client's own


def test_prefixes_are_found_in_training_runs_and_alone(tmp_path):
    one = served()
    save_prefix(one.prefix, tmp_path / "run" / "prefix", "a/backbone")
    for directory in (tmp_path / "run", tmp_path / "run" / "prefix"):
        (found,) = load_served({"name": str(find_prefix(str(directory)))})
        assert (found.name, found.salt) == ("name", one.salt)
    with pytest.raises(UserError, match="There is no adapter_config.json"):
        load_served({"name": str(tmp_path)})


SALTS = {"tuned": "salt-a", "strict": "salt-b", "base": None}


@pytest.mark.parametrize(
    ("request_body", "salt"),
    [
        ({"model": "tuned", "prompt": "x"}, "salt-a"),
        ({"model": "strict", "messages": []}, "salt-b"),
        ({"model": "strict", "cache_salt": "mine"}, "salt-b.mine"),
        ({"prompt": "x"}, "salt-a"),
        ({"model": "base", "cache_salt": "mine"}, "mine"),
        ({"model": "base"}, None),
        ({"model": "unknown"}, None),
        ({"model": 3}, None),
    ],
)
def test_a_request_gets_the_salt_of_its_model(request_body, salt):
    found = json.loads(salted(json.dumps(request_body).encode(), SALTS))
    assert found.pop("cache_salt", None) == salt
    assert found == {name: value for name, value in request_body.items() if name != "cache_salt"}


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"\xff\xfe\x00", b"null"])
def test_what_is_no_json_object_passes_as_it_is(body):
    assert salted(body, SALTS) == body


def test_the_placeholder_is_a_token_that_no_program_has():
    tokenizer = tiny_tokenizer()
    assert placeholder_id(tokenizer, VOCAB + 5) == VOCAB
    assert placeholder_id(tokenizer, VOCAB) == tokenizer.pad_token_id
    tokenizer.pad_token = tokenizer.eos_token
    assert placeholder_id(tokenizer, VOCAB) not in (tokenizer.eos_token_id, None)


def config_of(arch: str, **overrides):
    kind, values = ARCHITECTURES[arch]
    return AutoConfig.for_model(kind, **(values | overrides))


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_every_tested_architecture_is_served_within_its_window(arch):
    part = config_of(arch)
    heads = {"llama": 4, "phi": 4, "codegen": 4, "gpt2": 4, "gpt_neox": 4, "gpt_bigcode": 1}.get(arch, 2)
    shape = PrefixShape(2, heads, 16 if arch == "qwen3" else 8)
    check_model(part, 128, [ServedPrefix("tuned", Prefix(shape, length=5))])


@pytest.mark.parametrize(
    ("part", "max_model_len", "message"),
    [
        (config_of("mistral", sliding_window=64), 65, "at most 64 tokens: max_model_len=64"),
        (config_of("qwen2", **MIXED), 64, "leave its sliding window"),
        (AutoConfig.for_model("deepseek_v3"), 64, "compresses keys and values together"),
        (AutoConfig.for_model("mamba"), 64, "no attention with numbered positions"),
        (config_of("llama_gqa", num_hidden_layers=3), 64, "belongs to another backbone"),
        (config_of("llama_gqa"), 6, "no room for a prompt and an answer"),
    ],
)
def test_what_would_lose_a_prefix_is_refused(part, max_model_len, message):
    with pytest.raises(UserError, match=message):
        check_model(part, max_model_len, [served(kv_heads=2)])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run=null"], "There is no prefix to serve"),
        (["run=null", "prefixes={base: x}"], "The model name base is taken"),
        (["run=null", "prefixes={mine: x}"], "nothing says which backbone to serve"),
        (["run=no/such/run"], "is no finished training run"),
    ],
)
def test_serve_refuses_with_a_sentence(overrides, message, tmp_path):
    with pytest.raises(UserError, match=message):
        serve(config("serve", tmp_path, *overrides), tmp_path / "none")
