"""vLLM's OpenAI-compatible server with trained prefixes: each is a model name that any client can ask for.

    clients ask for the model "tuned"  ──►  PrefixByModel: cache_salt = the prefix's  ──►  vLLM's own server
    ──►  generate: M token ids before the real ones  ──►  connector.py: keys and values of the prefix

What a client sees has none of this: counts of prompt tokens, and the prompt where it is echoed, are without the M ids.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from cptlab.errors import UserError
from cptlab.serving.served_prefix import ServedPrefix, prefix_of

CONNECTOR = "cptlab.serving.connector"


def transfer_config(directories: Mapping[str, str]) -> dict[str, Any]:
    """Return what vLLM's --kv-transfer-config gets for the prefixes in these directories by model name."""
    return {
        "kv_connector": "PrefixConnector",
        "kv_connector_module_path": CONNECTOR,
        "kv_role": "kv_consumer",
        "kv_connector_extra_config": {"prefixes": dict(directories)},
    }


def placeholder_id(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> int:
    """Return the token id that stands for a prefix's positions. The model never reads it.

    A repetition penalty sees it as a token of the prompt. So it is one that no program has: behind the tokenizer's own, or
    else the padding token.
    """
    behind = max(tokenizer.get_vocab().values()) + 1
    if behind < vocab_size:
        return behind
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    return vocab_size - 1 if pad is None or pad == end else int(pad)  # type: ignore[arg-type]


class PrefixByModel:
    """An ASGI layer of vLLM's server that gives a request the cache salt of the prefix whose name it has as its model.

    `model_salts` of the server's arguments maps every model name to its prefix's salt, or to None for the backbone alone.
    A salt of the client's own follows behind a dot.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body = salted(body, scope["app"].state.args.model_salts)
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def once() -> Any:
            return given.pop() if given else await receive()

        await self.app({**scope, "headers": headers}, once, send)


def salted(body: bytes, salts: Mapping[str, str | None]) -> bytes:
    """Return a request's body with the salt of its model; as it is where it is no JSON object or names no prefix.

    A request that names no model has the first one, as in vLLM.
    """
    try:
        request = json.loads(body)
    except ValueError:  # also of bytes that are no text
        return body
    if not isinstance(request, dict):
        return body
    name = request.get("model") or next(iter(salts))
    salt = salts.get(name) if isinstance(name, str) else None
    own = request.get("cache_salt")
    if salt is None:
        return body
    return json.dumps(request | {"cache_salt": f"{salt}.{own}" if own else salt}).encode()


def with_prefixes(
    generate: Callable[..., AsyncIterator[Any]], served: Sequence[ServedPrefix], placeholder: int, max_model_len: int
) -> Callable[..., AsyncIterator[Any]]:
    """Return vLLM's `AsyncLLM.generate` for prompts whose cache salt may name a prefix: M placeholders come before them.

    Raises vLLM's validation error, which a client sees, for what cannot be given with a prefix.
    """
    from vllm.exceptions import VLLMValidationError

    prefixes = {one.salt: one for one in served}

    async def prefixed(prompt: Any, sampling_params: Any, request_id: str, **options: Any) -> AsyncIterator[Any]:
        try:
            prefix = prefix_of(prompt.get("cache_salt"), prefixes) if isinstance(prompt, dict) else None
        except UserError as error:
            raise VLLMValidationError(str(error)) from None
        if prefix is None:
            async for output in generate(prompt, sampling_params, request_id, **options):
                yield output
            return
        if prompt["type"] != "token":
            raise VLLMValidationError(
                f"The model {prefix.name} has a prefix, so its prompts are text or token ids alone."
            )
        if sampling_params.prompt_logprobs is not None:
            raise VLLMValidationError(
                f"The model {prefix.name} has a prefix, with which vLLM gives no log-probabilities of the prompt. Ask for those "
                "of new tokens alone (logprobs without echo)."
            )
        ids = prompt["prompt_token_ids"]
        room = max_model_len - prefix.length - len(ids)
        if room < 1:
            raise VLLMValidationError(
                f"The prompt has {len(ids)} tokens behind a prefix of {prefix.length}, but the context has {max_model_len}. "
                "Shorten it."
            )
        limited = sampling_params.clone()
        limited.max_tokens = min(room, sampling_params.max_tokens or room)
        whole = {**prompt, "prompt_token_ids": [placeholder] * prefix.length + list(ids)}
        async for output in generate(whole, limited, request_id, **options):
            output.prompt_token_ids = ids
            if output.num_cached_tokens is not None:
                output.num_cached_tokens = max(0, output.num_cached_tokens - prefix.length)
            yield output

    return prefixed


def parse_arguments(
    path: str, directories: Mapping[str, str], served: Sequence[ServedPrefix], base: str, arguments: Sequence[str]
) -> Any:
    """Return the arguments of vLLM's server: the prefixes by their names, the model at `path` alone as `base`."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    salts = {one.name: one.salt for one in served} | {base: None}
    config = json.dumps(transfer_config(directories))
    layer = f"{PrefixByModel.__module__}.{PrefixByModel.__name__}"
    ours = ["--kv-transfer-config", config, "--served-model-name", *salts, "--middleware", layer]
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", path, *arguments, *ours])
    validate_parsed_serve_args(parsed)
    parsed.model_salts = salts
    return parsed


async def run_server(arguments: Any, served: Sequence[ServedPrefix]) -> None:
    """Serve until a signal ends it."""
    from vllm.entrypoints.launchers.api_server.entry import build_and_serve, build_async_engine_client
    from vllm.entrypoints.launchers.launcher import setup_server

    address, socket = setup_server(arguments, reuse_port=False)
    try:
        async with build_async_engine_client(arguments) as engine:
            model: Any = engine.model_config
            placeholder = placeholder_id(engine.renderer.get_tokenizer(), model.get_vocab_size())  # type: ignore[arg-type]
            engine.generate = with_prefixes(engine.generate, served, placeholder, model.max_model_len)  # type: ignore[method-assign]
            ended = await build_and_serve(engine, address, socket, arguments)
            print(f"Serving {', '.join(arguments.model_salts)} on {address}", flush=True)
        await ended
    finally:
        socket.close()
