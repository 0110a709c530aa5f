"""Namespaces: a process that sees a read-only root of its own, no other process and no network.

`enter` puts a judging server into user, mount, pid, network and IPC namespaces. It needs no privilege, but some systems
switch it off (containers with their default profile, Ubuntu 24.04 for ordinary users). The server then builds a root on
a small tmpfs in which the interpreter's own files are read-only and nothing else of the machine exists: no home, no
benchmark files, no /proc. Only /tmp in it can be written, with bounds on its size and number of files.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable

import cptlab
from cptlab.judging.sandbox.interpreter_files import DEVICES, readable_paths
from cptlab.judging.workers.libc import PR_SET_PDEATHSIG, libc

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_DETACH = 2
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD = 442, 0x8000, -100
_PACKAGE = os.path.dirname(os.path.realpath(cptlab.__file__))
SCRATCH = "/tmp"  # below the new root


def enter(root: str, scratch_mb: int, scratch_files: int, afterwards: Callable[[], None]) -> bool:
    """Put this process into namespaces of its own, as their process 1, and build its root at `root` (an empty folder).

    Return False, with nothing changed, where the system refuses any part of it. The calling process stays behind, waits
    for the end and calls `afterwards`.
    """
    pid = os.fork()
    if pid == 0:  # a trial: what is half done cannot be undone
        os._exit(0 if _unshare() and _in_child(lambda: _build_root(root, scratch_mb, scratch_files)) else 1)
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
    return _build_root(root, scratch_mb, scratch_files)


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


def _build_root(root: str, scratch_mb: int, scratch_files: int) -> bool:
    """Mount the new root at `root`. Return False where the system refuses a mount."""
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
        for name in DEVICES:
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
