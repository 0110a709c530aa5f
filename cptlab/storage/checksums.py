"""Files of one directory that belong together, with their SHA-256 beside them, so that a damaged one is never read.

    write_checksums(directory, ["pairs.jsonl", "statistics.json"])       # last, when the files are there
    if not is_sound(directory, ["pairs.jsonl", "statistics.json"]): ...  # not complete, or damaged

The checksums stand in `sha256sums`, as the command of that name writes and checks them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cptlab.storage.atomic import write_lines
from cptlab.storage.damaged import set_aside

CHECKSUMS = "sha256sums"


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file in hexadecimal digits; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_checksums(directory: Path, names: Sequence[str]) -> None:
    """Write the checksums of these files of a directory."""
    write_lines(directory / CHECKSUMS, (f"{file_digest(directory / name)}  {name}" for name in names))


def is_sound(directory: Path, names: Sequence[str]) -> bool:
    """Whether all these files are there as they were written."""
    known = _known(directory)
    return all(name in known and known[name] == file_digest(directory / name) for name in names)


def set_unsound_aside(directory: Path, names: Sequence[str]) -> None:
    """Set aside those of these files that are not as they were written."""
    known = _known(directory)
    if (directory / CHECKSUMS).exists() and not known:
        set_aside(directory / CHECKSUMS, "it holds no checksums")
    for name in names:
        path = directory / name
        if path.is_dir() or (path.exists() and name in known and known[name] != file_digest(path)):
            set_aside(path, "it is not as it was written")


def _known(directory: Path) -> dict[str, str]:
    try:
        lines = (directory / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines) if name}
