# SPDX-License-Identifier: GPL-3.0-or-later
"""tmpcopyup: a tmpfs that begins with what was in the directory below it (runc's mount option).

The directory belongs to the image, which may be changed while we look: everything is opened by
name below a descriptor, never through a link, and looked at again once it is open.
"""

from __future__ import annotations

import errno
import os
import stat

_CHUNK = 1 << 20
_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC


def copy_up(source: int, target: int) -> None:
    """Copy what a directory holds, and its attributes, into another, both given by descriptors.

    Files, directories, links, pipes and device nodes, with mode, owner, times and extended
    attributes; sockets are left out. Raises OSError with the name.
    """
    for name in os.listdir(source):
        try:
            _copy(name, source, target)
        except FileNotFoundError:
            continue  # it was removed meanwhile
        except OSError as e:
            if e.filename is None:
                raise OSError(e.errno, os.strerror(e.errno or 0), name) from None
            raise
    _copy_attributes(source, target)


def _copy(name: str, source: int, target: int) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        _both(name, source, target, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
    elif kind == stat.S_IFREG:
        create = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        # O_NONBLOCK: should it have become a pipe, opening it doesn't wait for a writer.
        _both(name, source, target, os.O_RDONLY | os.O_NONBLOCK, create)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        _own(name, target, found)
    elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
        _own(name, target, found)


def _both(name: str, source: int, target: int, read: int, write: int) -> None:
    """Open a file or directory on both sides and copy it."""
    from_ = os.open(name, read | _NO_FOLLOW, dir_fd=source)
    try:
        to = os.open(name, write | _NO_FOLLOW, 0o600, dir_fd=target)
        try:
            if read & os.O_DIRECTORY:
                copy_up(from_, to)
            elif stat.S_ISREG(os.fstat(from_).st_mode):
                while os.sendfile(to, from_, None, _CHUNK):
                    pass
                _copy_attributes(from_, to)
        finally:
            os.close(to)
    finally:
        os.close(from_)


def _copy_attributes(source: int, target: int) -> None:
    found = os.fstat(source)
    try:
        os.fchown(target, found.st_uid, found.st_gid)
    except OSError as e:
        # An owner that isn't mapped in this user namespace.
        if e.errno not in (errno.EINVAL, errno.EPERM):
            raise
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in _attribute_names(source):
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as e:
            # tmpfs doesn't take every kind, and a user namespace's root may not set every one.
            if e.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA):
                raise
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _attribute_names(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as e:
        if e.errno != errno.EOPNOTSUPP:
            raise
        return []


def _own(name: str, directory: int, found: os.stat_result) -> None:
    try:
        os.chown(name, found.st_uid, found.st_gid, dir_fd=directory, follow_symlinks=False)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EPERM):
            raise
