"""Namespaces: a process that sees a read-only root of its own, no other process and no network.

`enter` puts a judging server into user, mount, pid, network and IPC namespaces. It needs no privilege, but some systems
switch it off (containers with their default profile, Ubuntu 24.04 for ordinary users). The server then builds a root on
a small tmpfs in which the interpreter's own files are read-only and nothing else of the machine exists: no home, no
benchmark files, no /proc. Only its scratch directory can be written, with bounds on its size and number of files: /tmp, or
another where the interpreter itself lies below /tmp.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable

import cptlab
from cptlab.judging.sandbox.interpreter_files import DEVICES, named_paths, readable_paths
from cptlab.judging.workers.libc import PR_SET_PDEATHSIG, failure, libc

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_DETACH = 2
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD = 442, 0x8000, -100
_PACKAGE = os.path.dirname(os.path.realpath(cptlab.__file__))


def scratch_path() -> str:
    """Return where the scratch directory is below the new root."""
    places = ("/tmp", "/scratch", "/judged")
    paths = [*named_paths(), *readable_paths()]
    return next(place for place in places if not any(f"{path}/".startswith(f"{place}/") for path in paths))


def enter(root: str, scratch_mb: int, scratch_files: int, afterwards: Callable[[], None]) -> None:
    """Put this process into namespaces of its own, as their process 1, and build its root at `root` (an empty folder).

    OSError, with nothing changed, where the system refuses any part of it. The calling process stays behind, waits for
    the end and calls `afterwards`.
    """

    def build() -> None:
        _build_root(root, scratch_mb, scratch_files)

    _in_child(lambda: (_unshare(), _in_child(build)))  # a trial: what is half done cannot be undone
    _unshare()
    pid = os.fork()
    if pid:
        os.close(0)
        os.close(1)
        status = os.waitpid(pid, 0)[1]
        libc.umount2(root.encode(), _DETACH)
        afterwards()
        os._exit(1 if status else 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    build()


def _in_child(action: Callable[[], object]) -> None:
    """Do `action` in a forked child. Raise the OSError that it raises there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os.write(writer, str(error).encode("utf-8", "backslashreplace")[:1000])
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as file:
        reason = file.read().decode()
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError(reason or "the attempt ended without a reason")


def _unshare() -> None:
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS) != 0:
        raise failure("unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _build_root(root: str, scratch_mb: int, scratch_files: int) -> None:
    """Mount the new root at `root`. OSError where the system refuses a mount."""
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path in readable_paths():
        _bind(path, root + path)
        _read_only(root + path, recursive=True)
    if os.path.isdir(root + _PACKAGE):  # an installed cptlab could tell what kata's tests expect
        _mount("tmpfs", root + _PACKAGE, "tmpfs", _RDONLY, "size=4k,mode=755")
    for path in named_paths():  # links on the way to the interpreter's files, such as /lib
        if not os.path.lexists(root + path):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.symlink(os.path.realpath(path), root + path)
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{root}/dev/{name}")
        _read_only(f"{root}/dev/{name}", recursive=False)  # their modes and times are the host's; they can be written
    scratch = scratch_path()
    os.symlink(scratch, f"{root}/dev/shm")  # POSIX semaphores and shared memory lie there
    os.mkdir(root + scratch)
    bounds = f"size={scratch_mb}m,nr_inodes={scratch_files},mode=700"
    _mount("tmpfs", root + scratch, "tmpfs", _NOSUID | _NODEV, bounds)
    _read_only(root, recursive=False)
    try:
        _mount("proc", "/proc", "proc", 0)  # for this server's own view, where a container does not refuse it
    except OSError:
        pass


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
        raise failure(f"mount {target}")


def _read_only(path: str, recursive: bool) -> None:
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", _RDONLY | _NOSUID, 0, 0, 0))
    flags = _AT_RECURSIVE if recursive else 0
    if libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, attributes, 32) != 0:
        raise failure(f"mount_setattr {path}")
