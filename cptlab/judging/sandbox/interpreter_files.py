"""The files that every confined program may read: the interpreter's own, and a few devices."""

from __future__ import annotations

import os
import sys
import sysconfig

DEVICES = ("null", "zero", "full", "random", "urandom")  # in /dev


def readable_paths() -> list[str]:
    """Return what an interpreter needs to read: its libraries, the system's shared libraries, a few files of /etc."""
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
    real = {os.path.realpath(path) for path in paths if os.path.exists(path)}
    kept: list[str] = []
    for path in sorted(real):  # a parent comes before what is in it
        if not any(path == parent or path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept
