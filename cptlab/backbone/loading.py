"""Load a causal language model from the Hugging Face hub, a directory, or this package, and freeze it."""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of httpx or httpx2, whichever the hub uses
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from cptlab.backbone.exactness import check_exact
from cptlab.backbone.foreign_errors import raised_outside
from cptlab.backbone.gguf_file import check_not_rounded_again, dequantised_loading, find_gguf, only_gguf
from cptlab.backbone.model import Backbone
from cptlab.backbone.prefix_shape import TESTED
from cptlab.backbone.quantization import QUANTIZATIONS, quantized_loading, use_own_products
from cptlab.errors import UserError
from cptlab.progress import waiting
from cptlab.settings.setting import Setting, check_settings
from cptlab.tasks.prompting import FORMS

DTYPE_NAMES = ("float32", "bfloat16", "float16")
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
EMBEDDED = {"kata-lm": "lm", "kata-starcoder2": "starcoder2"}  # folders of cptlab/kata
HUB_SECONDS = 5.0


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without transformers' progress bars, which models of all sizes get. Its GGUF reader asks tqdm alone for its bar."""
    bars, init = logging.is_progress_bar_enabled(), tqdm.__init__
    logging.disable_progress_bar()
    tqdm.__init__ = functools.partialmethod(init, disable=True)  # type: ignore[method-assign]
    try:
        yield
    finally:
        tqdm.__init__ = init  # type: ignore[method-assign]
        if bars:
            logging.enable_progress_bar()


def load_backbone(
    path: Annotated[
        str,
        Setting(
            "A hub id, a local directory, a GGUF file, or a model inside this package: kata-lm or kata-starcoder2."
        ),
    ],
    *,
    revision: Annotated[str | None, Setting("Branch, tag or commit on the hub; null: the newest.")] = None,
    dtype: Annotated[
        str, Setting("Precision of the weights and of what they compute.", choices=DTYPE_NAMES)
    ] = "float32",
    device: Annotated[
        str, Setting("Device, such as cpu, cuda, cuda:1 or mps; auto: the GPU where there is one.")
    ] = "cpu",
    mask_token: Annotated[
        str | None,
        Setting(
            "One token of the vocabulary that masks anchored text; null: the tokenizer's mask, unknown or padding token."
        ),
    ] = None,
    prompting: Annotated[
        str,
        Setting(
            "How the model is asked. base: it continues the benchmark's prompt; chat: in its tokenizer's chat template; auto: "
            "chat where there is one.",
            choices=FORMS,
        ),
    ] = "auto",
    prompt_template: Annotated[
        str | None,
        Setting(
            "Text around each prompt, with the fields {nl}, {tests} and {code}, which ends it; null: as `prompting` says."
        ),
    ] = None,
    attn_implementation: Annotated[
        str | None, Setting("Attention kernel; null: transformers chooses.", choices=("eager", "sdpa"))
    ] = None,
    quantization: Annotated[
        str | None,
        Setting("Precision of the layers' weights, where bitsandbytes or torchao is installed.", choices=QUANTIZATIONS),
    ] = None,
    local_files_only: Annotated[bool, Setting("true: ask no hub, take what was downloaded before.")] = False,
) -> Backbone:
    """Load the model at `path` and freeze it.

    If the hub does not answer within seconds, the model that was downloaded before is loaded. Raises UserError for a
    model that cannot be loaded or does not fit, and for a device that is not there.
    """
    check_settings(
        load_backbone,
        dtype=dtype,
        prompting=prompting,
        attn_implementation=attn_implementation,
        quantization=quantization,
    )
    where = resolve_device(device)
    quantized = quantized_loading(quantization, DTYPES[dtype], where) if quantization else {}
    source, options, commit = locate(path, revision, local_files_only)
    if gguf := options.get("gguf_file"):
        check_not_rounded_again(gguf, quantization)
    try:
        with no_progress_bars(), waiting(f"Loading {path}"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=DTYPES[dtype],
                attn_implementation=attn_implementation,
                output_loading_info=True,
                **options,
                **(dequantised_loading() if gguf else quantized),
            )
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model, info = loaded
    except Exception as error:  # files may be missing, damaged or foreign: each library has its own error for that
        if not raised_outside(error):
            raise
        how, remedy = (
            (f" in {quantization}", "Set backbone.quantization=null, or check") if quantized else ("", "Check")
        )
        raise UserError(
            f"{path} cannot be loaded as a causal language model{how} ({_first_line(error)}). "
            f"{remedy} that it holds a complete one that transformers knows, or download it again."
        ) from error
    if info["missing_keys"]:
        raise UserError(
            f"The weights of {path} are incomplete: {len(info['missing_keys'])} tensors are missing, the first is "
            f"{sorted(info['missing_keys'])[0]}. Download the model again."
        )
    if quantized:
        use_own_products(model)
    if gguf:  # as save_pretrained would, so that a directory that it writes is the same backbone
        model.config.architectures = [type(model).__name__]
    rows = model.get_input_embeddings().weight.shape[0]
    if max(tokenizer.get_vocab().values()) >= rows:
        raise UserError(
            f"The tokenizer of {path} has token {max(tokenizer.get_vocab().values())}, but the model only {rows} "
            "embeddings. Put the tokenizer and the model of one training in the directory."
        )
    backbone = Backbone(
        model.to(where),
        tokenizer,
        path,
        path=path if commit else str(Path(source, gguf or "")),
        revision=commit,
        mask_token=mask_token,
        prompt_template=prompt_template,
        prompting=prompting,
    )
    backbone.text_tokens.check(path)
    if model.config.model_type not in TESTED:
        check_exact(backbone)
    return backbone


def load_config(
    path: str, *, revision: str | None = None, local_files_only: bool = False
) -> tuple[PreTrainedConfig, bool]:
    """Return the config of the model at `path`, and whether its weights are on this machine. Raises UserError."""
    source, options, _ = locate(path, revision, local_files_only)
    try:
        config = AutoConfig.from_pretrained(source, **options)
    except Exception as error:  # of whatever class: the file may hold anything
        if not raised_outside(error):
            raise
        raise UserError(
            f"The config of {path} cannot be read ({_first_line(error)}). "
            "Check that the file is whole and that transformers knows the model."
        ) from error
    if "gguf_file" in options:
        return config, True
    names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    if Path(source).is_dir():
        return config, any((Path(source) / name).is_file() for name in names)
    return config, any(isinstance(try_to_load_from_cache(path, name, revision=revision), str) for name in names)


def resolve_device(device: str) -> torch.device:
    """Return the device. 'auto' is the process's own GPU if there is one. Raises UserError for a missing device."""
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"There is no device {device!r}. Set backbone.device to auto, cpu, cuda, cuda:1 or mps.")
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}[resolved.type]
    if (resolved.index or 0) >= count:
        raise UserError(
            f"There is no device {device}: this machine has {count} of that kind. "
            "Set backbone.device=cpu (device=cpu for evaluate.py), or run where there is one."
        )
    return resolved


def locate(path: str, revision: str | None, local_files_only: bool) -> tuple[str, dict[str, Any], str | None]:
    """Return the path for `from_pretrained`, the options for it, and the commit of a model of the hub."""
    if path in EMBEDDED:
        directory = Path(str(importlib.resources.files("cptlab") / "kata" / EMBEDDED[path]))
    else:
        directory = Path(path).expanduser()
    local = {"local_files_only": True}
    if gguf := find_gguf(directory):
        return str(gguf.parent), local | {"gguf_file": gguf.name}, None
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise UserError(
                f"{directory} holds no config.json. Give a directory that save_pretrained wrote, or a GGUF file."
            )
        return str(directory), local, None
    if path in EMBEDDED:
        raise UserError(f"The embedded model is missing from {directory}. Reinstall cptlab, or retrain the model.")
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path:
        raise UserError(f"There is no directory {directory}. Check backbone.path: a model's directory, or a hub id.")
    reason = "local_files_only is set"
    if not local_files_only:
        try:
            commit = _ask_hub(path, revision)
            return path, {"revision": revision or "main"}, commit
        except ConnectionError as error:
            reason = f"the hub cannot be reached ({error})"
    cached = try_to_load_from_cache(path, "config.json", revision=revision)
    if isinstance(
        cached, str
    ):  # with the hub id instead of its directory, transformers would ask the hub for some files
        snapshot = Path(cached).parent
        return str(snapshot), local, snapshot.name
    raise UserError(
        f"{path} is not a local directory, was not downloaded before, and {reason}. "
        "Connect to the hub, or download the model elsewhere and give its directory."
    )


def _ask_hub(path: str, revision: str | None) -> str | None:
    """Ask the hub for the commit of a model, once and briefly. transformers would retry a silent hub for a minute.

    Raises ConnectionError if the hub does not answer, and UserError if it refuses.
    """
    remedy = "Check backbone.path and backbone.revision, or give a local directory."
    try:
        info = HfApi().model_info(path, revision=revision, timeout=HUB_SECONDS)
    except GatedRepoError:
        raise UserError(
            f"{path} is gated on the hub. Accept its licence there and run `hf auth login`, or give a local directory."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{path} has no revision {revision} on the hub. {remedy}") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"{path} is neither a local directory nor a model that the hub shows you. {remedy}") from None
    except (OSError, HTTPError) as error:  # no network, no answer, offline mode
        raise ConnectionError(_first_line(error)) from None
    if name := only_gguf([file.rfilename for file in info.siblings or ()]):
        raise UserError(
            f"{path} holds GGUF files. Download one, as with `hf download {path} {name} --local-dir DIR`, and set "
            f"backbone.path=DIR/{name}."
        )
    return info.sha


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
