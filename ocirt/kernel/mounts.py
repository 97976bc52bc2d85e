# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls on mounts, each a thin typed function named as its manual page.

All raise OSError. No policy: what to mount where is decided in ocirt.parts.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable

from ocirt.kernel import _linux
from ocirt.kernel.constants import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC,
    FSOPEN_CLOEXEC,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_REC,
    OPEN_TREE_CLOEXEC,
)

_syscall = _linux.syscall


def fd_path(fd: int) -> str:
    """Return the path by which mount(2) reaches what a descriptor refers to (proc_pid_fd(5))."""
    return f"/proc/self/fd/{fd}"


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    try:
        _syscall(
            _linux.SYS_mount,
            source,
            target,
            fstype or None,
            flags,
            data or None,
        )
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0)) from None


def set_propagation(target: str, flags: int) -> None:
    """Change a mount's propagation (mount_namespaces(7)): MS_SHARED ... with or without MS_REC."""
    mount("", target, "", flags)


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _syscall(_linux.SYS_umount2, target, flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _syscall(_linux.SYS_pivot_root, new_root, put_old)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2), always close-on-exec. Returns a descriptor."""
    return _syscall(_linux.SYS_open_tree, dirfd, path, flags | OPEN_TREE_CLOEXEC)


def move_mount(tree: int, target: int) -> None:
    """move_mount(2): attach the tree a descriptor refers to on top of another descriptor."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _syscall(_linux.SYS_move_mount, tree, "", target, "", flags)


def mount_setattr(
    dirfd: int,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    user_namespace: int = 0,
) -> None:
    """mount_setattr(2) on the mount that a descriptor refers to; flags may be AT_RECURSIVE.

    user_namespace is the descriptor of the one whose mappings MOUNT_ATTR_IDMAP takes.
    """
    attr = struct.pack("=QQQQ", attr_set, attr_clr, propagation & ~MS_REC, user_namespace)
    _syscall(_linux.SYS_mount_setattr, dirfd, "", flags | AT_EMPTY_PATH, attr, len(attr))


def detached_tmpfs() -> int:
    """Return a descriptor of a new, empty tmpfs that is mounted nowhere (fsopen(2), fsmount(2))."""
    context = _syscall(_linux.SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)
    try:
        _syscall(_linux.SYS_fsconfig, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall(_linux.SYS_fsmount, context, FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def explain_mount(fstype: str, source: str, options: Iterable[str]) -> str:
    """Return the kernel's own words why a filesystem can't be made of these options, or "".

    mount(2) says EINVAL and no more; fsopen(2)'s message log names the option. Nothing stays
    mounted.
    """
    try:
        fd = _syscall(_linux.SYS_fsopen, fstype, FSOPEN_CLOEXEC)
    except OSError:
        return ""
    try:
        if source:
            _syscall(_linux.SYS_fsconfig, fd, FSCONFIG_SET_STRING, "source", source, 0)
        for option in options:
            key, equals, value = option.partition("=")
            command = FSCONFIG_SET_STRING if equals else FSCONFIG_SET_FLAG
            words = value if equals else None
            _syscall(_linux.SYS_fsconfig, fd, command, key, words, 0)
        _syscall(_linux.SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, None, None, 0)
    except OSError:
        return _message(fd)
    finally:
        os.close(fd)
    return ""


def _message(fd: int) -> str:
    try:
        text = os.read(fd, 1024).decode(errors="replace").strip()
    except OSError as e:
        if e.errno != errno.ENODATA:
            raise
        return ""
    # "e tmpfs: Unknown parameter 'foo'": the letter is the severity.
    return text[2:] if text[1:2] == " " else text


__all__ = [
    "AT_FDCWD",
    "detached_tmpfs",
    "explain_mount",
    "fd_path",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "set_propagation",
    "umount2",
]
