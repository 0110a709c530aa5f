"""A system-call filter for the candidate's process.

It refuses new processes and programs, sockets, signals to others (also those that the kernel sends to the owner of a
descriptor), changes of priority, extended attributes, and whatever would outlive the process: keys, objects of
inter-process communication, and descriptors sent to a socket, which keep files and memory after the sender's death.

RLIMIT_NPROC does not bind root and counts a whole user; this filter binds everyone and concerns one process alone.
Threads stay allowed. A refused call fails with EPERM, so Python raises PermissionError.
"""

from __future__ import annotations

import ctypes
import os
import struct

from cptlab.judging.workers.libc import libc

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF: ld abs, jeq, jge, jset, ret
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data (little-endian machines)
_CLONE_THREAD = 0x10000
_SIGNALLING = (8, 10, 15)  # fcntl's F_SETOWN, F_SETSIG, F_SETOWN_EX
# ioctl's TCGETS, TCGETS2, TIOCGWINSZ, TIOCGPGRP, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: questions and flags. No others, as
# they signal (FIOSETOWN, SIOCSPGRP, FIOASYNC) or change files for good (FS_IOC_SETFLAGS, FS_IOC_SET_ENCRYPTION_POLICY).
_HARMLESS = (0x5401, 0x802C542A, 0x5413, 0x540F, 0x541B, 0x5421, 0x5450, 0x5451)
# socketpair's SOCK_STREAM and SOCK_SEQPACKET, also with SOCK_NONBLOCK and SOCK_CLOEXEC: they stay connected to each other. One
# of datagrams sends to any Unix socket of the machine.
_CONNECTED = tuple(kind | flags for kind in (1, 5) for flags in (0, 0x800, 0x80000, 0x80800))
_X32 = 0x40000000
_THIS_PROCESS = 0x7A5C91E3  # stands for the process id in the template
_CAP_DAC_READ_SEARCH = 1 << 2

# Audit architecture; calls that are refused; those of which it depends on an argument, or on who calls.
_TABLES = {
    "x86_64": (
        0xC000003E,
        dict(fork=57, vfork=58, execve=59, execveat=322, tkill=200, ptrace=101, process_vm_readv=310,
             process_vm_writev=311, socket=41, pidfd_send_signal=424, rt_sigqueueinfo=129, rt_tgsigqueueinfo=297,
             unshare=272, setns=308, mount=165, bpf=321, io_uring_setup=425, shmget=29, semget=64, msgget=68,
             mq_open=240, add_key=248, request_key=249, keyctl=250, perf_event_open=298, userfaultfd=323,
             setpriority=141, sched_setparam=142, sched_setscheduler=144, sched_setaffinity=203, sched_setattr=314,
             ioprio_set=251, pidfd_getfd=438, process_madvise=440, process_mrelease=448, migrate_pages=256,
             move_pages=279, setxattr=188, lsetxattr=189, fsetxattr=190, setxattrat=463),
        dict(clone=56, clone3=435, kill=62, tgkill=234, prlimit64=302, fcntl=72, ioctl=16, sendmsg=46, sendmmsg=307,
             socketpair=53),
    ),
    "aarch64": (
        0xC00000B7,
        dict(execve=221, execveat=281, tkill=130, ptrace=117, process_vm_readv=270, process_vm_writev=271, socket=198,
             pidfd_send_signal=424, rt_sigqueueinfo=138, rt_tgsigqueueinfo=240, unshare=97, setns=268, mount=40,
             bpf=280, io_uring_setup=425, shmget=194, semget=190, msgget=186, mq_open=180, add_key=217,
             request_key=218, keyctl=219, perf_event_open=241, userfaultfd=282,
             setpriority=140, sched_setparam=118, sched_setscheduler=119, sched_setaffinity=122, sched_setattr=274,
             ioprio_set=30, pidfd_getfd=438, process_madvise=440, process_mrelease=448, migrate_pages=238,
             move_pages=239, setxattr=5, lsetxattr=6, fsetxattr=7, setxattrat=463),
        dict(clone=220, clone3=435, kill=129, tgkill=131, prlimit64=261, fcntl=25, ioctl=29, sendmsg=211, sendmmsg=269,
             socketpair=199),
    ),
}  # fmt: skip


def no_new_privileges() -> bool:
    """Promise that no program started by this process gains privileges; the filter and Landlock require it."""
    return libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0


def check() -> None:
    """Try the filter in a child. OSError where there is none."""
    if not is_known(os.uname().machine):
        raise OSError(f"there is no system-call filter for {os.uname().machine}")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if no_new_privileges() and confine_server() and confine(for_child()) else 1)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError("the kernel refuses a system-call filter")


def confine_server() -> bool:
    """Install in this process, for good, what no child of it may do either. Return False where there is no such filter.

    This is the larger part of the filter. It is installed once, because each filter takes the kernel a while.
    """
    program = _for_server()
    return program is not None and program.install()


class Filter:
    """A filter program in memory, and the places in it where the id of the filtered process goes."""

    def __init__(self, program: bytes) -> None:
        self.code = ctypes.create_string_buffer(program, len(program))
        self.header = ctypes.create_string_buffer(
            struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self.code))
        )
        self.places = [
            at for at in range(4, len(program), 8) if program[at : at + 4] == struct.pack("I", _THIS_PROCESS)
        ]

    def install(self) -> bool:
        return libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.addressof(self.header), 0, 0) == 0


def confine(program: Filter | None) -> bool:
    """Install `for_child()` in this process, for good: no new processes, and signals and limits only for itself."""
    if program is None:
        return False
    for place in program.places:
        struct.pack_into("I", program.code, place, os.getpid())
    return program.install()


def drop_capabilities(all_of_them: bool) -> None:
    """Give up root's powers. Only reading any file may stay: without a root of its own, an interpreter below /root needs it.

    A process with more capabilities, such as the judge, can then no longer be traced or have its memory read.
    """
    kept = 0 if all_of_them else _CAP_DAC_READ_SEARCH
    header = struct.pack("Ii", 0x20080522, 0)
    if libc.capset(header, struct.pack("6I", kept, kept, 0, 0, 0, 0)) != 0:  # an ordinary user has none to keep
        libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0))


_REFUSE = (_RETURN, 0, 0, _ERRNO | _EPERM)


def is_known(machine: str) -> bool:
    """Whether there is a filter for this kind of processor."""
    return machine in _TABLES


def _for_server() -> Filter | None:
    if not is_known(os.uname().machine):
        return None
    architecture, refused, own = _TABLES[os.uname().machine]
    lines = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    lines += [(_LOAD, 0, 0, _NR), (_AT_LEAST, 0, 1, _X32), _REFUSE]
    for number in refused.values():
        lines += [(_EQUAL, 0, 1, number), _REFUSE]
    lines += _of_second_argument(own["fcntl"], _SIGNALLING, allowed=False)
    lines += _of_second_argument(own["ioctl"], _HARMLESS, allowed=True)
    lines += _of_second_argument(own["socketpair"], _CONNECTED, allowed=True)
    return _packed(lines)


def for_child() -> Filter | None:
    """Return the part of the filter that concerns a child alone; the server's part checks the architecture."""
    if not is_known(os.uname().machine):
        return None
    own = _TABLES[os.uname().machine][2]
    lines = [(_LOAD, 0, 0, _NR), (_EQUAL, 0, 1, own["clone3"])]
    lines.append((_RETURN, 0, 0, _ERRNO | _ENOSYS))  # its flags lie in memory; libc falls back to clone
    for name in ("sendmsg", "sendmmsg"):  # what they send lies in memory, too; the server needs them
        lines += [(_EQUAL, 0, 1, own[name]), _REFUSE]
    lines += [(_EQUAL, 0, 4, own["clone"]), (_LOAD, 0, 0, _ARG0), (_ANY_BIT, 0, 1, _CLONE_THREAD)]
    lines += [(_RETURN, 0, 0, _ALLOW), _REFUSE]
    for name in ("kill", "tgkill", "prlimit64"):
        lines += [(_EQUAL, 0, 5, own[name]), (_LOAD, 0, 0, _ARG0), (_EQUAL, 1, 0, _THIS_PROCESS)]
        lines.append(
            (_EQUAL, 0, 1, 0 if name == "prlimit64" else _THIS_PROCESS)
        )  # kill(0) would signal the whole group
        lines += [(_RETURN, 0, 0, _ALLOW), _REFUSE]
    return _packed(lines)


def _of_second_argument(number: int, values: tuple[int, ...], allowed: bool) -> list[tuple[int, int, int, int]]:
    """Lines that allow the call `number` with one of `values` as its second argument alone, or with any other alone."""
    found, otherwise = (_RETURN, 0, 0, _ALLOW), _REFUSE
    if not allowed:
        found, otherwise = otherwise, found
    lines = [(_EQUAL, 0, len(values) + 3, number), (_LOAD, 0, 0, _ARG1)]
    lines += [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [*lines, otherwise, found]


def _packed(lines: list[tuple[int, int, int, int]]) -> Filter:
    return Filter(b"".join(struct.pack("HBBI", *line) for line in [*lines, (_RETURN, 0, 0, _ALLOW)]))
