"""A prefix as vLLM serves it: its keys and values by layer and head, and the cache salt that requests name it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cptlab.adapters import Prefix, load_prefix
from cptlab.errors import UserError

SALT = "cptlab-prefix-"  # how a cache salt that names a prefix begins


@dataclass(frozen=True)
class ServedPrefix:
    """A trained prefix under the model name that clients ask for."""

    name: str
    prefix: Prefix

    @property
    def length(self) -> int:
        """M, the positions that the prefix takes."""
        return self.prefix.length

    @property
    def salt(self) -> str:
        """The cache salt of requests with this prefix. It depends on the content alone, so another prefix never shares it."""
        return f"{SALT}{self.prefix.digest()[:32]}"

    def layer(self, index: int, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
        """Return keys and values [M, heads, head_dim] of layer `index` for the key/value heads that tensor rank `rank` holds.

        As in vLLM, each of `ranks` processes holds an equal part of the heads, or one head where there are fewer heads.
        """
        heads = self.prefix.shape.num_kv_heads
        mine = max(1, heads // ranks)
        first = rank * mine if heads >= ranks else rank // (ranks // heads)
        key, value = self.prefix.key_values()[index]
        return tuple(part[first : first + mine].transpose(0, 1).detach().contiguous() for part in (key, value))  # type: ignore[return-value]


def load_served(directories: Mapping[str, str]) -> list[ServedPrefix]:
    """Load the prefixes in these directories by their model names. Raises UserError."""
    return [ServedPrefix(name, load_prefix(find_prefix(directory))) for name, directory in directories.items()]


def find_prefix(directory: str) -> Path:
    """Return the directory of a prefix, given that or the directory of the training run that made it."""
    inside = Path(directory) / "prefix"
    return inside if inside.is_dir() else Path(directory)


def prefix_of(salt: str | None, prefixes: Mapping[str, ServedPrefix]) -> ServedPrefix | None:
    """Return the prefix, of those by salt, that a cache salt names: alone, or before a dot and a salt of the client's own.

    Raises UserError for a salt that names a prefix that is not served.
    """
    if salt is None or not salt.startswith(SALT):
        return None
    found = prefixes.get(salt.partition(".")[0])
    if found is None:
        raise UserError(
            f"The cache salt {salt} names no prefix that is served here. Ask for a model by its name instead."
        )
    return found
