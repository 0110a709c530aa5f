"""vLLM as a side of decode.py, where it is installed: the same model, prompts, rows and sampling, in this process.

The random model has no hook there, so a program ends at a token whose id is a multiple of decode.py's `EVERY` itself, and not
at the end-of-text token after it: one token less. Before `SHORTEST` tokens those ids are left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import torch

from cptlab.backbone import Backbone
from cptlab.records import Prompt

SHARE = 0.9  # of the free memory of a card


def installed() -> bool:
    return find_spec("vllm") is not None


def started(
    backbone: Backbone, options: argparse.Namespace, prompt_tokens: int, ends: Iterable[int], shortest: int
) -> Callable:
    """Start vLLM, which is not timed, and return the side: (backbone, prompts, options) -> tokens of each program.

    `ends`: the token ids at which a program ends, from the `shortest`-th token on.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # so that its CPU time is this process's
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    from vllm import LLM, SamplingParams

    on_gpu = options.device != "cpu"
    memory: dict[str, Any] = {}
    if on_gpu:
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        memory = {"gpu_memory_utilization": SHARE * free / total}
    with tempfile.TemporaryDirectory() as directory:
        path = options.model
        if path is None:
            backbone.model.save_pretrained(directory)
            path = directory
        model = LLM(
            path, dtype=options.dtype, skip_tokenizer_init=True, max_model_len=prompt_tokens + options.longest,
            max_num_seqs=options.rows, enforce_eager=not on_gpu, distributed_executor_backend="uni", **memory,
        )  # fmt: skip
    how = SamplingParams(
        n=options.n, temperature=options.temperature, top_p=options.top_p, max_tokens=options.longest, min_tokens=shortest,
        stop_token_ids=sorted(ends), ignore_eos=True, detokenize=False,
    )  # fmt: skip

    def by_vllm(backbone: Backbone, prompts: list[tuple[str, Prompt]], options: argparse.Namespace) -> list[int]:
        ids = [{"prompt_token_ids": backbone.encode_prompt(prompt.text)} for _, prompt in prompts]
        found = model.generate(ids, how, use_tqdm=False)
        return [len(output.token_ids) for request in found for output in request.outputs]

    return by_vllm
