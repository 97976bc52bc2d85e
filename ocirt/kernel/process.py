# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls on processes: namespaces, credentials, limits, execution.

Each is a thin typed function named as its manual page and raises OSError. prctl(2) calls that
python-prctl has are used from there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import NoReturn

from ocirt.kernel import _linux
from ocirt.kernel.constants import (
    CLONE_PARENT,
    F_ADD_SEALS,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    KEYCTL_JOIN_SESSION_KEYRING,
    KEYCTL_SETPERM,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    MFD_EXEC,
    MFD_NOEXEC_SEAL,
    NS_GET_NSTYPE,
)

_syscall = _linux.syscall

SIGCHLD = 17


def clone3(flags: int, *, cgroup: int = -1) -> tuple[int, int]:
    """clone3(2) as a fork: (pid, pidfd) in the parent, (0, -1) in the child.

    cgroup is a descriptor of a cgroup v2 directory when flags have CLONE_INTO_CGROUP.
    """
    # A sibling has the exit signal of the caller; clone3 refuses to be given one.
    return _linux.clone3(flags, 0 if flags & CLONE_PARENT else SIGCHLD, cgroup)


def clone_shared(
    flags: int, cgroup: int, ours: int, theirs: int, run: Callable[[], NoReturn]
) -> tuple[int, int]:
    """clone3(2) of a process that shares our memory (CLONE_VM); returns its pid and pidfd.

    ours and theirs are the ends of a pair of SOCK_SEQPACKET sockets. The child ends with us; it
    calls run() at its first turn(), and gets nothing of ours but what run refers to.
    """
    return _linux.clone_shared(flags, SIGCHLD, cgroup, ours, theirs, run)


#: turn(channel, packet, pidfd, signals, mask): see _linux.c.
turn = _linux.turn
#: last_words(channel, packet): see _linux.c.
last_words = _linux.last_words
#: give_slot_back(): see image/slot.c.
give_slot_back = _linux.give_slot_back


def unshare(flags: int) -> None:
    """unshare(2)."""
    _syscall(_linux.SYS_unshare, flags)


def setns(fd: int, nstype: int) -> None:
    """setns(2); nstype 0 accepts any type."""
    _syscall(_linux.SYS_setns, fd, nstype)


def namespace_type(fd: int) -> int:
    """Return the CLONE_NEW* constant of a namespace descriptor (ioctl_ns(2), NS_GET_NSTYPE)."""
    return fcntl.ioctl(fd, NS_GET_NSTYPE)


def setresuid(uid: int) -> None:
    """setresuid(2) with one id for all three, for this thread alone."""
    _syscall(_linux.SYS_setresuid, uid, uid, uid)


def setresgid(gid: int) -> None:
    """setresgid(2) with one id for all three, for this thread alone."""
    _syscall(_linux.SYS_setresgid, gid, gid, gid)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    words = os.fsencode(name)
    _syscall(_linux.SYS_sethostname, words, len(words))


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    words = os.fsencode(name)
    _syscall(_linux.SYS_setdomainname, words, len(words))


def prlimit(pid: int, resource: int, soft: int, hard: int) -> None:
    """prlimit(2): set one limit of a process; values up to 2^64 - 1, which means unlimited."""
    _syscall(_linux.SYS_prlimit64, pid, resource, struct.pack("=QQ", soft, hard), None)


def close_range(first: int, last: int, flags: int) -> None:
    """close_range(2)."""
    _syscall(_linux.SYS_close_range, first, last, flags)


def keyctl_join_session_keyring(name: str) -> int:
    """Create or join a named session keyring (keyctl_join_session_keyring(3)); its serial."""
    return _syscall(_linux.SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name)


def keyctl_setperm(serial: int, permissions: int) -> None:
    """Set what possessor, owner, group and others may do with a key (keyctl_setperm(3))."""
    _syscall(_linux.SYS_keyctl, KEYCTL_SETPERM, serial, permissions)


def chroot(path: str) -> None:
    """chroot(2)."""
    _syscall(_linux.SYS_chroot, path)


def sealed_memfd(name: str, content: bytes, *, executable: bool) -> int:
    """Return a descriptor of an anonymous file that nobody can change (memfd_create(2)).

    Raises PermissionError for an executable one where vm.memfd_noexec=2 forbids it.
    """
    fd = memfd(name, executable=executable)
    os.write(fd, content)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    return fd


def memfd(name: str, *, executable: bool = False) -> int:
    """Return a descriptor of an empty anonymous file (memfd_create(2)), close-on-exec."""
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    try:
        return _memfd_create(name, flags | (MFD_EXEC if executable else MFD_NOEXEC_SEAL))
    except OSError as e:
        # Kernels before 6.3 know neither flag.
        if e.errno != errno.EINVAL:
            raise
        return _memfd_create(name, flags)


def _memfd_create(name: str, flags: int) -> int:
    return _syscall(_linux.SYS_memfd_create, name, flags)
