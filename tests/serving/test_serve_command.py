"""`cptlab serve` against an OpenAI client that knows nothing of prefixes. `make test-serving` runs this."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from vllm_models import NEEDS_VLLM, TEMPLATE, TOKENS, ours, prefixes_on_disk

from cptlab.adapters import load_prefix
from cptlab.backbone import load_backbone

pytestmark = NEEDS_VLLM
START_SECONDS = 600  # of a busy machine
TEXTS = [f"def f{'x' * number}(n):\n    # {'abc ' * number}{number}\n    return" for number in range(6)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(client, prefixes by name, backbone): the embedded model with two prefixes, one of them from a training run."""
    import openai  # comes with vLLM

    directory = tmp_path_factory.mktemp("serve")
    backbone = load_backbone("kata-lm")
    directories = prefixes_on_disk(backbone, directory / "run", {"prefix": 12, "other": 40})
    (directory / "run" / "config.yaml").write_text("backbone:\n  path: kata-lm\n  dtype: float32\n")
    (directory / "chat.jinja").write_text(TEMPLATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--enforce-eager", f"--chat-template={directory / 'chat.jinja'}", "--num-gpu-blocks-override=40"]
    command = [sys.executable, "-m", "cptlab.commands.serve", f"run={directory / 'run'}", f"port={port}"]
    command += [f"prefixes={{other: {directories['other']}}}", f"vllm=[{','.join(repr(one) for one in options)}]"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=directory, start_new_session=True
        )
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        for _ in range(START_SECONDS):
            try:
                client.models.list()
                break
            except openai.APIConnectionError:
                assert process.poll() is None, (directory / "log").read_text()[-3000:]
                time.sleep(1)
        prefixes = {
            "tuned": load_prefix(directories["prefix"]),
            "other": load_prefix(directories["other"]),
            "base": None,
        }
        yield client, prefixes, backbone
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def complete(client, model: str, text: str) -> str:
    return client.completions.create(model=model, prompt=text, temperature=0, max_tokens=TOKENS).choices[0].text


def test_every_prefix_is_a_model(server):
    client, prefixes, _ = server
    assert {model.id for model in client.models.list()} == set(prefixes)


def test_completions_of_many_clients_at_once_are_ours(server):
    client, prefixes, backbone = server
    wanted = {name: ours(backbone, TEXTS, prefix) for name, prefix in prefixes.items()}
    asked = [(name, number) for number in range(len(TEXTS)) for name in prefixes]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: complete(client, one[0], TEXTS[one[1]]), asked))
    assert found == [wanted[name][number] for name, number in asked]
    assert wanted["tuned"] != wanted["base"] != wanted["other"]


def test_chat_has_the_prefix_before_the_template(server):
    client, prefixes, backbone = server
    text = "<user>Sort the list.\n<assistant>"
    for name, prefix in prefixes.items():
        reply = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Sort the list."}], temperature=0, max_tokens=TOKENS
        )
        assert reply.choices[0].message.content == ours(backbone, [text], prefix)[0]
        assert reply.usage.prompt_tokens == len(backbone.encode_prompt(text))


def test_a_stream_and_several_prompts_are_the_same_tokens(server):
    client, prefixes, backbone = server
    wanted = ours(backbone, TEXTS[:2], prefixes["tuned"])
    asked = {"model": "tuned", "temperature": 0, "max_tokens": TOKENS}
    stream = client.completions.create(**asked, prompt=TEXTS[0], stream=True)
    assert "".join(part.choices[0].text for part in stream) == wanted[0]
    several = client.completions.create(**asked, prompt=TEXTS[:2], extra_body={"cache_salt": "mine"})
    assert [choice.text for choice in several.choices] == wanted


def test_echo_shows_the_prompt_alone(server):
    client, _, _ = server
    reply = client.completions.create(model="tuned", prompt=TEXTS[0], echo=True, max_tokens=1, temperature=0)
    assert reply.choices[0].text.startswith(TEXTS[0])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": "x", "model": "base", "extra_body": {"cache_salt": "cptlab-prefix-0"}}, "names no prefix"),
        ({"prompt": "x", "echo": True, "logprobs": 1}, "no log-probabilities of the prompt"),
        ({"prompt": [5] * 1015}, "behind a prefix of 12"),  # of 1024
    ],
)
def test_what_cannot_be_given_is_refused_and_the_server_goes_on(server, asked, message):
    import openai

    client, prefixes, backbone = server
    with pytest.raises(openai.BadRequestError, match=message):
        client.completions.create(**({"model": "tuned", "max_tokens": 1} | asked))
    assert complete(client, "tuned", TEXTS[2]) == ours(backbone, TEXTS[2:3], prefixes["tuned"])[0]
