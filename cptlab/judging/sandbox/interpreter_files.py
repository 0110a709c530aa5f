"""The files that every confined program may read: the interpreter's own, and a few devices."""

from __future__ import annotations

import os
import sys
import sysconfig

DEVICES = ("null", "zero", "full", "random", "urandom")  # in /dev


def named_paths() -> list[str]:
    """Return the paths by which an interpreter names what it reads: its libraries, the system's, a few files of /etc."""
    paths = [
        "/usr",
        "/lib",
        "/lib64",
        "/lib32",
        "/bin",
        "/etc/ld.so.cache",
        "/etc/mime.types",
        "/etc/passwd",
        "/etc/group",
        "/etc/services",
        sys.base_prefix,
        sys.prefix,
        *sysconfig.get_paths().values(),
    ]
    return [path for path in paths if os.path.exists(path)]


def readable_paths() -> list[str]:
    """Return `named_paths`, without links on the way, and without what lies below another."""
    kept: list[str] = []
    for path in sorted(set(map(os.path.realpath, named_paths()))):  # a parent comes before what is in it
        if not any(path == parent or path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept
