"""Where a candidate process may look and write: a read-only root of its own, or Landlock where namespaces are refused.

`enter` puts a judging server into user, mount, pid, network and IPC namespaces. It needs no privilege, but some systems
switch it off (containers with their default profile, Ubuntu 24.04 for ordinary users). The server then builds a root on
a small tmpfs in which the interpreter's own files are read-only and nothing else of the machine exists: no home, no
benchmark files, no /proc. Only /tmp in it can be written; its size and number of files are bounded.

`landlock_rules` is the weaker way (Linux 5.13 and newer): the same paths may be read and one folder written, but
metadata of the user's own files can still be changed (chmod, utime), and the disk is bounded by file size alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import sysconfig
from collections.abc import Callable

import cptlab
from cptlab.judging.workers.fork_server import PR_SET_PDEATHSIG, libc

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_DETACH = 2
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD = 442, 0x8000, -100
_DEVICES = ("null", "zero", "full", "random", "urandom")
_PACKAGE = os.path.dirname(os.path.realpath(cptlab.__file__))
SCRATCH = "/tmp"  # in the jail

# Landlock's system calls and rights (linux/landlock.h); later kernels know further rights, which stay unhandled
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _PATH_BENEATH = 444, 445, 446, 1
_READ, _READ_FILE_ONLY, _ALL_V1, _REFER, _TRUNCATE, _IOCTL = 0b1101, 0b101, (1 << 13) - 1, 1 << 13, 1 << 14, 1 << 15


def readable_paths() -> list[str]:
    """What an interpreter needs to read: its libraries, the system's shared libraries, a few files of /etc."""
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


def enter(root: str, scratch_mb: int, scratch_files: int, afterwards: Callable[[], None]) -> bool:
    """Put this process into namespaces of its own, as their process 1, with a jail built at `root` (an empty folder).

    False, with nothing changed, where the system refuses any part of it. The process that called stays behind to wait for
    the end and do what is to be done `afterwards`.
    """
    pid = os.fork()
    if pid == 0:  # a trial: what is half done cannot be undone
        os._exit(0 if _unshare() and _in_child(lambda: _build(root, scratch_mb, scratch_files)) else 1)
    if os.waitpid(pid, 0)[1] != 0 or not _unshare():
        return False
    pid = os.fork()
    if pid:
        os.close(0)
        os.close(1)
        status = os.waitpid(pid, 0)[1]
        libc.umount2(root.encode(), _DETACH)
        afterwards()
        os._exit(1 if status else 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return _build(root, scratch_mb, scratch_files)


def _in_child(action: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if action() else 1)
    return os.waitpid(pid, 0)[1] == 0


def _unshare() -> bool:
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    return True


def _build(root: str, scratch_mb: int, scratch_files: int) -> bool:
    """Mount the jail at `root`; False if a mount is refused."""
    try:
        _mount("none", "/", "", _REC | _PRIVATE)
        _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
        for path in readable_paths():
            _bind(path, root + path)
            _read_only(root + path, recursive=True)
        if os.path.isdir(root + _PACKAGE):  # an installed cptlab could tell what kata's tests expect
            _mount("tmpfs", root + _PACKAGE, "tmpfs", _RDONLY, "size=4k,mode=755")
        for name in ("lib", "lib64", "lib32", "bin"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        for name in _DEVICES:
            _bind(f"/dev/{name}", f"{root}/dev/{name}")
        os.symlink(SCRATCH, f"{root}/dev/shm")  # POSIX semaphores and shared memory lie there
        os.mkdir(root + SCRATCH)
        _mount(
            "tmpfs", root + SCRATCH, "tmpfs", _NOSUID | _NODEV, f"size={scratch_mb}m,nr_inodes={scratch_files},mode=700"
        )
        _read_only(root, recursive=False)
    except OSError:
        return False
    try:
        _mount("proc", "/proc", "proc", 0)  # for this server's own view, where a container does not refuse it
    except OSError:
        pass
    return True


def _bind(path: str, target: str) -> None:
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    _mount(path, target, "", _BIND | _REC)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    if (
        libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode())
        != 0
    ):
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _read_only(path: str, recursive: bool) -> None:
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", _RDONLY | _NOSUID, 0, 0, 0))
    flags = _AT_RECURSIVE if recursive else 0
    if libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, attributes, 32) != 0:
        raise OSError(ctypes.get_errno(), f"mount_setattr {path}")


def landlock_version() -> int:
    """The version of Landlock that this kernel has, 0 for none."""
    return max(0, libc.syscall(_CREATE_RULESET, None, 0, 1))


def landlock_rules(scratch: str) -> int | None:
    """A rule set as a file descriptor: read the interpreter's files, do anything in `scratch`, nothing else."""
    version = landlock_version()
    if version == 0:
        return None
    handled = (
        _ALL_V1 | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0) | (_IOCTL if version >= 5 else 0)
    )
    rules = libc.syscall(_CREATE_RULESET, ctypes.create_string_buffer(struct.pack("Q", handled)), 8, 0)
    if rules < 0:
        return None
    places = [(path, _READ if os.path.isdir(path) else _READ_FILE_ONLY) for path in readable_paths()]
    places += [(f"/dev/{name}", _READ_FILE_ONLY | 0b10) for name in _DEVICES]
    for path, rights in [*places, (scratch, handled)]:
        folder = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights & handled, folder))
        added = libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
        os.close(folder)
        if added != 0:
            return None
    return rules


def landlock(rules: int) -> bool:
    """Bind this process to `rules`, for good. It must have no_new_privs set, or the capability to do without."""
    return libc.syscall(_RESTRICT_SELF, rules, 0) == 0
