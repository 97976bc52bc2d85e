# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing what is mounted: by mount_setattr(2), or by mount(2) where that can't be used."""

from __future__ import annotations

import errno
import os

from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.mounts import fd_path, mount, mount_setattr, set_propagation
from ocirt.parts.mount_options import MountOptions

#: What says that a system call is missing, or that a sandbox around us forbids it.
WITHOUT_CALL = (errno.ENOSYS, errno.EPERM)

# statvfs(3) flag, its name, mount flag: what a bind remount has to repeat.
_ST_FLAGS = (
    (os.ST_RDONLY, "ro", k.MS_RDONLY),
    (os.ST_NOSUID, "nosuid", k.MS_NOSUID),
    (os.ST_NODEV, "nodev", k.MS_NODEV),
    (os.ST_NOEXEC, "noexec", k.MS_NOEXEC),
    (os.ST_NOATIME, "noatime", k.MS_NOATIME),
    (os.ST_NODIRATIME, "nodiratime", k.MS_NODIRATIME),
    (os.ST_RELATIME, "relatime", k.MS_RELATIME),
)


def set_attributes(fd: int, options: MountOptions) -> bool:
    """Give a bind mount its attributes by mount_setattr(2); False where that can't be used."""
    to_set, to_clear = options.attributes()
    try:
        if to_set or to_clear:
            mount_setattr(fd, 0, attr_set=to_set, attr_clr=to_clear)
        _set_recursive_and_propagation(fd, options)
    except OSError as e:
        if e.errno not in (*WITHOUT_CALL, errno.EINVAL):
            raise
        return False
    return True


def _set_recursive_and_propagation(fd: int, options: MountOptions) -> None:
    if options.recursive_set or options.recursive_clear:
        mount_setattr(
            fd, k.AT_RECURSIVE, attr_set=options.recursive_set, attr_clr=options.recursive_clear
        )
    for propagation in options.propagation:
        recursive = k.AT_RECURSIVE if propagation & k.MS_REC else 0
        mount_setattr(fd, recursive, propagation=propagation)


def remount(fd: int, options: MountOptions) -> None:
    """Do by mount(2) what set_attributes() couldn't; recursive attributes have no such way."""
    if options.recursive_set or options.recursive_clear:
        raise OcirtError(
            "mount options can't be set recursively: either this kernel has no mount_setattr (5.12)"
            " or a sandbox forbids it, or they would undo what the host has set"
        )
    if options.flags & ~(k.MS_BIND | k.MS_REC) or options.cleared:
        remount_bind(fd, options.flags, options.cleared)
    for propagation in options.propagation:
        set_propagation(fd_path(fd), propagation)


def make_read_only(fd: int, *, recursive: bool) -> None:
    """Make the mount of a descriptor read-only and leave its other flags alone."""
    try:
        mount_setattr(fd, k.AT_RECURSIVE if recursive else 0, attr_set=k.MOUNT_ATTR_RDONLY)
    except OSError as e:
        if e.errno not in WITHOUT_CALL:
            raise
        remount_bind(fd, k.MS_RDONLY, 0)


def remount_bind(fd: int, flags: int, cleared: int) -> None:
    """Change a mount's flags by mount(2), which needs all flags that are to stay repeated."""
    present = os.fstatvfs(fd).f_flag
    undone = []
    for st_flag, name, ms_flag in _ST_FLAGS:
        if present & st_flag:
            if cleared & ms_flag:
                undone.append(name)
            else:
                flags |= ms_flag
    try:
        mount("", fd_path(fd), "", flags & ~k.MS_REC | k.MS_BIND | k.MS_REMOUNT)
    except PermissionError as e:
        if not undone:
            raise
        words = f"the host's mount is {', '.join(undone)}, which a user namespace can't undo"
        raise OSError(e.errno, words) from None
