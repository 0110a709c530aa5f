"""Damaged files of a store: named, set aside and made anew, so that one bad file stops no command.

    set_aside(path, "it is no SQLite file")      # renamed to <name>.damaged, which is said on stderr

Use it where a file that the program wrote itself cannot be read as such. Nothing is deleted. `usable_place` is for the
directories that several users share: one that belongs to somebody else is left alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cptlab.errors import UserError

LOCK_FILE = "lock"


def set_aside(path: Path, reason: str) -> None:
    """Rename a damaged file or directory to `<name>.damaged`, numbered where that is taken, and say so on stderr.

    One that another process has already set aside is no error. Raises UserError where it cannot be renamed.
    """
    number = 1
    aside = path.with_name(f"{path.name}.damaged")
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"{path} is damaged ({reason}) and cannot be renamed ({error.strerror}). Delete it, or name another "
            "directory: paths.cache=DIR, paths.logs=DIR."
        ) from None
    print(f"{path} is damaged: {reason}. It is set aside as {aside.name} and made anew.", file=sys.stderr, flush=True)


def usable_place(directory: Path) -> Path:
    """Return `directory`, or where this user may not write to it or make it, one of this user's own beside it.

    What is no directory is set aside.
    """
    if os.path.lexists(directory) and not directory.is_dir():
        set_aside(directory, "it is no directory")
    if directory.is_dir() and not writable(directory, directory / LOCK_FILE):
        directory = _own(directory)
    if not directory.is_dir() and not writable(directory.parent):
        directory = _own(directory.parent) / directory.name
    return directory


def _own(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}-of-user-{os.geteuid()}")


def writable(*paths: Path) -> bool:
    """Whether this user may write to all of those that exist."""
    return all(os.access(path, os.W_OK, effective_ids=True) for path in paths if os.path.lexists(path))
