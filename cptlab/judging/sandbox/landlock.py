"""Landlock (Linux 5.13 and newer): a process may read the interpreter's files and write one folder, and no other file.

It is weaker than a root of its own (namespaces.py): metadata of the user's own files can still be changed (chmod, utime),
and the size of each file is the only bound on the disk. Newer kernels also refuse TCP, abstract Unix sockets and signals to
processes outside, which the system-call filter (seccomp.py) refuses on any kernel.
"""

from __future__ import annotations

import ctypes
import os
import struct

from cptlab.judging.sandbox.interpreter_files import DEVICES, readable_paths
from cptlab.judging.workers.libc import failure, libc

# System calls and rights of linux/landlock.h; later kernels know further rights, which stay unhandled.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _PATH_BENEATH = 444, 445, 446, 1
_READ, _READ_FILE, _WRITE_FILE, _ALL_V1, _REFER, _TRUNCATE, _IOCTL = (
    0b1101,
    0b101,
    0b10,
    (1 << 13) - 1,
    1 << 13,
    1 << 14,
    1 << 15,
)
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract Unix sockets and signals


def version() -> int:
    """Return the version of Landlock that this kernel has. OSError where it has none, or was started without it."""
    found = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if found <= 0:
        raise failure("Landlock")
    return found


def make_rules(scratch: str) -> int:
    """Make a rule set: read the interpreter's files, do anything in `scratch`, nothing else.

    Return its file descriptor. OSError where the kernel refuses.
    """
    found = version()
    handled = _ALL_V1 | (_REFER if found >= 2 else 0) | (_TRUNCATE if found >= 3 else 0) | (_IOCTL if found >= 5 else 0)
    attributes = struct.pack("QQQ", handled, _TCP, _SCOPES)[: 24 if found >= 6 else 16 if found >= 4 else 8]
    rules = libc.syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes), len(attributes), 0)
    if rules < 0:
        raise failure("landlock_create_ruleset")
    places = [(path, _READ if os.path.isdir(path) else _READ_FILE) for path in readable_paths()]
    places += [(f"/dev/{name}", _READ_FILE | _WRITE_FILE) for name in DEVICES]
    for path, rights in [*places, (scratch, handled)]:
        folder = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights & handled, folder))
        added = libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
        os.close(folder)
        if added != 0:
            raise failure(f"landlock_add_rule for {path}")
    return rules


def restrict(rules: int) -> bool:
    """Bind this process to `rules`, for good. It must have no_new_privs set, or the capability to do without."""
    return libc.syscall(_RESTRICT_SELF, rules, 0) == 0
