"""Programs from vLLM in the place of cptlab's decoding engine: `decoding.engine=vllm`.

Requests, limits and the end of a program are those of cptlab.decoding, and so are the completions. The random numbers are
vLLM's own, drawn from a seed of each program's: the same call on the same machine gives like programs, another engine gives others.

vLLM runs in this process, beside the backbone of transformers, which gives the tokens. It is started for a backbone and its
prefix, and ends when programs of another are asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from cptlab.adapters import Prefix, save_prefix
from cptlab.backbone import Backbone
from cptlab.decoding import Sampling
from cptlab.decoding.engine import completion_of, make_request
from cptlab.decoding.request import Request
from cptlab.decoding.running_batch import STOP_INTERVAL
from cptlab.errors import UserError
from cptlab.records import Completion, Prompt
from cptlab.serving.installed import vllm_version
from cptlab.serving.served_prefix import ServedPrefix
from cptlab.serving.server import placeholder_id, transfer_config

_names = itertools.count()  # of requests; each is given once in a process
_running: tuple[Any, Any] | None = None  # the vLLM of this process, and what it was started for


def generate_with_vllm(
    backbone: Backbone,
    prompts: Sequence[tuple[str, Prompt]],
    sampling: Sampling,
    *,
    prefix: Prefix | None,
    seed: int,
    samples: Sequence[Sequence[int]],
    ended: Callable[[Completion], None],
) -> None:
    """Make these samples of every (task id, prompt), and call `ended` with each completion when its program ends.

    Raises UserError, before anything is generated, for a prompt that does not fit, or that needs token healing.
    """
    requests = [make_request(backbone, index, *prompt, None, sampling, prefix) for index, prompt in enumerate(prompts)]
    for request in requests:
        if request.rest is not None:
            raise UserError(
                f"The prompt of task {request.task_id} ends within what would be one token, and healing that stays with "
                "cptlab's own engine. Set decoding.sampling.heal=false, or decoding.engine=cptlab."
            )
    wanted = [(request, sample) for request, some in zip(requests, samples, strict=True) for sample in some]
    if wanted:
        _run(_start(backbone, prefix), backbone, wanted, sampling, prefix, seed, ended)


def _run(
    engine: Any,
    backbone: Backbone,
    wanted: Sequence[tuple[Request, int]],
    sampling: Sampling,
    prefix: Prefix | None,
    seed: int,
    ended: Callable[[Completion], None],
) -> None:
    """Give vLLM all requests, look at the text of each every few tokens, and end those whose program is over."""
    before: dict[str, Any] = {}
    ids_before: list[int] = []
    if prefix is not None:
        vocabulary = backbone.config.vocab_size
        ids_before = [placeholder_id(backbone.tokenizer, vocabulary)] * prefix.length
        before = {"cache_salt": ServedPrefix("prefix", prefix).salt}
    running = {}
    for request, sample in wanted:
        name = str(next(_names))
        prompt = {"prompt_token_ids": [*ids_before, *request.ids], **before}
        engine.add_request(name, prompt, _parameters(backbone, request, sample, sampling, seed))
        running[name] = (request, sample, [])
    try:
        while running:
            for output in engine.step():
                if output.request_id not in running:
                    continue
                request, sample, ids = running[output.request_id]
                had = len(ids)
                ids += output.outputs[0].token_ids
                looked = len(ids) // STOP_INTERVAL > had // STOP_INTERVAL
                if output.finished or (looked and request.is_over(backbone, ids)):
                    if output.outputs[0].finish_reason == "error":
                        raise RuntimeError(f"vLLM failed on a program of task {request.task_id}; its log says why")
                    if not output.finished:
                        engine.abort_request([output.request_id])
                    del running[output.request_id]
                    ended(completion_of(backbone, request, sample, ids))
    finally:
        if running:
            engine.abort_request(list(running))


def _parameters(backbone: Backbone, request: Request, sample: int, sampling: Sampling, seed: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    digest = hashlib.blake2b(repr((seed, request.task_id, sample)).encode(), digest_size=4).digest()
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=request.limit,
        seed=int.from_bytes(digest, "big"),
        stop_token_ids=sorted(backbone.eos_ids),
        ignore_eos=True,  # those ids are all that end a text
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _start(backbone: Backbone, prefix: Prefix | None) -> Any:
    """Return the vLLM that runs this backbone with this prefix; another one in this process is ended first."""
    global _running
    key = backbone.fingerprint, str(backbone.dtype), None if prefix is None else prefix.digest()
    if _running is not None and _running[0] == key:
        return _running[1]
    _stop()
    vllm_version()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from cptlab.serving.checks import check_model

    options: dict[str, Any] = {"max_model_len": backbone.context_length, "distributed_executor_backend": "uni"}
    options["enforce_eager"] = not torch.cuda.is_available()  # compiling for a CPU takes a C++ compiler, and minutes
    with _on_disk(backbone, prefix) as directories:
        if prefix is not None:
            check_model(backbone.config, backbone.context_length, [ServedPrefix("prefix", prefix)])
            options["kv_transfer_config"] = transfer_config(directories)
        name = str(backbone.dtype).removeprefix("torch.")
        engine = LLMEngine.from_engine_args(
            EngineArgs(backbone.path, dtype=name, revision=backbone.revision, **options)
        )
    _running = key, engine
    return engine


@contextlib.contextmanager
def _on_disk(backbone: Backbone, prefix: Prefix | None) -> Iterator[dict[str, str]]:
    """Save the prefix for as long as vLLM starts, which reads it then."""
    with tempfile.TemporaryDirectory() as directory:
        if prefix is not None:
            save_prefix(prefix, directory, backbone)
        yield {"prefix": directory}


def _stop() -> None:
    global _running
    if _running is None:
        return
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.distributed.kv_transfer import ensure_kv_transfer_shutdown

    _running[1].engine_core.shutdown()
    _running = None
    ensure_kv_transfer_shutdown()
    cleanup_dist_env_and_memory()
