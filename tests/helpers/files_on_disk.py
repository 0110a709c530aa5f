"""Files as tests look at them and spoil them, and another user of the machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of every file below a directory, by its relative path."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


# ways to spoil a file, by name
DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(b"\x00\xff garbage\n" * 500),
    "empty": lambda path: path.write_bytes(b""),
    "directory": _directory,
}


@contextmanager
def other_user() -> Iterator[None]:
    """Be another user within the block, for all that is done to files. Only root can."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def open_to_all(path: Path, mode: int = 0o777) -> None:
    """Let every user reach a directory; pytest's own directories above it are private."""
    path.chmod(mode)
    for above in path.parents:
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
