"""Models on disk that vLLM's CPU build runs, prefixes for them, and the same prompts decoded by cptlab's engine and by vLLM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ARCHITECTURES, tiny_backbone

from cptlab.adapters import Prefix, save_prefix
from cptlab.backbone import Backbone, load_backbone
from cptlab.decoding import generate
from cptlab.decoding.sampling import Sampling
from cptlab.records import Prompt

NEEDS_VLLM = pytest.mark.skipif(
    find_spec("vllm") is None,
    reason="vLLM is not installed here; make test-serving runs this in an environment of its own",
)
WIDER = {"hidden_size": 128, "n_embd": 128, "num_key_value_heads": 2, "sliding_window": None}  # heads of 32 numbers
TOKENS = 32
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}<assistant>"


def vllm_settings() -> None:
    """Set what vLLM reads from the environment: little memory, one process bound to no core, no reports."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"


def model_on_disk(arch: str, directory: Path) -> Backbone:
    """Return the embedded model of that name, or a random one of an architecture, saved in the directory with a chat template."""
    if arch not in ARCHITECTURES:
        return load_backbone(arch)
    overrides = {name: value for name, value in WIDER.items() if name in ARCHITECTURES[arch][1]}
    made = tiny_backbone(arch, **overrides)
    made.tokenizer.chat_template = TEMPLATE
    made.model.save_pretrained(directory)
    made.tokenizer.save_pretrained(directory)
    return load_backbone(str(directory), prompting="base")


def prefixes_on_disk(backbone: Backbone, directory: Path, lengths: dict[str, int]) -> dict[str, str]:
    """Save a random prefix of each length below the directory, large enough to change texts; return where, by name."""
    for seed, (name, length) in enumerate(lengths.items()):
        prefix = Prefix(backbone, length, seed=seed)
        prefix.table.data.mul_(50)
        save_prefix(prefix, directory / name, backbone)
    return {name: str(directory / name) for name in lengths}


def ours(backbone: Backbone, texts: Sequence[str], prefix: Prefix | None) -> list[str]:
    """Return what cptlab's engine writes greedily after each text."""
    sampling = Sampling(temperature=0, max_new_tokens=TOKENS, heal=False)
    prompts = [(str(number), Prompt(text)) for number, text in enumerate(texts)]
    return [one.raw for (one,) in generate(backbone, prompts, 1, sampling, prefix=prefix)]


def start(backbone: Backbone, directories: dict[str, str], **options: Any) -> Any:
    """Start an unmodified vLLM in this process, with the connector alone."""
    vllm_settings()
    from vllm import LLM

    from cptlab.serving.server import transfer_config

    return LLM(
        backbone.path,
        dtype="float32",
        max_model_len=256,
        enforce_eager=True,
        disable_log_stats=False,
        kv_transfer_config=transfer_config(directories),
        **({"distributed_executor_backend": "uni"} | options),
    )


def stop(llm: Any) -> None:
    """End a vLLM of this process, so that another can start."""
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.distributed.kv_transfer import ensure_kv_transfer_shutdown

    llm.llm_engine.engine_core.shutdown()
    ensure_kv_transfer_shutdown()
    cleanup_dist_env_and_memory()
