"""GGUF files, llama.cpp's format: models whose weights are mostly rounded to 4 to 8 bits. They are dequantised at load.

transformers reads them with the package `gguf`. Training and decoding then see an ordinary model in `backbone.dtype`,
whose weights are those of the file, so a prefix trained on it belongs to the rounded model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers.utils.import_utils import is_accelerate_available, is_gguf_available

from cptlab.errors import UserError

ENDING = ".gguf"
OTHER_WEIGHTS = (".safetensors", ".bin")
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)


def find_gguf(place: Path) -> Path | None:
    """Return the GGUF file that `place` is, or that it holds where it is a directory without other weights; else None.

    Raises UserError for a directory of several, for a part of a file, and where no package reads GGUF files.
    """
    if place.is_dir():
        names = [path.name for path in place.iterdir() if path.is_file()]
        first = only_gguf(names)
        if first is None:
            return None
        files = sorted(name for name in names if name.lower().endswith(ENDING))
        if len(files) > 1 and not all(map(_parts, files)):
            raise UserError(
                f"{place} holds {len(files)} GGUF files: {', '.join(files[:5])}{', …' * (len(files) > 5)}. Set "
                f"backbone.path to one of them, such as {place / first}."
            )
        place /= first
    elif place.suffix.lower() != ENDING:
        return None
    elif not place.is_file():
        raise UserError(
            f"There is no file {place}. Check backbone.path: a GGUF file, a model's directory, or a hub id."
        )
    if parts := _parts(place.name):
        raise UserError(
            f"{place} is one of {parts} parts of a model. Join them with llama.cpp's `llama-gguf-split --merge`, and give "
            "the whole file."
        )
    if not (is_gguf_available() and is_accelerate_available()):
        raise UserError(
            f"{place} is a GGUF file, and to read it needs the packages gguf and accelerate. Install them with `pip install "
            "'cptlab[gguf]'`, or convert the model elsewhere and give its directory (docs/real-llms.md)."
        )
    return place


def only_gguf(names: Sequence[str]) -> str | None:
    """Return the first GGUF file among the files of a model that has its weights in no other form; else None."""
    if any(name.endswith(OTHER_WEIGHTS) for name in names):
        return None
    return min((name for name in names if name.lower().endswith(ENDING)), default=None)


def check_not_rounded_again(file: str, quantization: str | None) -> None:
    """Raise UserError for a GGUF file that is to be quantized as it is loaded, which transformers cannot do."""
    if quantization is not None:
        raise UserError(
            f"{file} is a GGUF file, and backbone.quantization={quantization} cannot round its weights once more. Set "
            "backbone.quantization=null, or take the model's Hugging Face directory."
        )


def dequantised_loading() -> dict[str, Any]:
    """Return the options of `from_pretrained` that dequantise a file. Versions without `GgufConfig` always do."""
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _parts(name: str) -> int:
    """Return how many parts the model has that the file `name` is a part of; 0 for a whole file."""
    found = _PART.search(name)
    return int(found[1]) if found and int(found[1]) > 1 else 0
