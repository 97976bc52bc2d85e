# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls on files that the os module lacks; all raise OSError."""

from __future__ import annotations

import os
import struct
from functools import lru_cache

from ocirt.kernel import _linux
from ocirt.kernel.constants import PROC_SUPER_MAGIC

_syscall = _linux.syscall

# struct open_how: flags, mode, resolve.
_OPEN_HOW = struct.Struct("=QQQ")
PROC_ROOT_INO = 1
_CHUNK = 1 << 16


@lru_cache
def open_how(flags: int, resolve: int) -> bytes:
    """Return a struct open_how (openat2(2)), always close-on-exec; resolve has RESOLVE_ flags."""
    return _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)


def openat2(dirfd: int, path: str, how: bytes) -> int:
    """openat2(2) with an open_how(). Returns a descriptor."""
    return _syscall(_linux.SYS_openat2, dirfd, path, how, _OPEN_HOW.size)


def fstatfs_type(fd: int) -> int:
    """Return the magic number of the filesystem a descriptor is on (statfs(2), f_type)."""
    answer = bytearray(256)
    _syscall(_linux.SYS_fstatfs, fd, answer)
    return int(struct.unpack_from("=Q", answer)[0])


def open_procfs(path: str = "/proc") -> int:
    """Return an O_PATH descriptor of a /proc that is verified to be a procfs's root.

    Whatever is written under it can't have been redirected by a mount on a forged /proc.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if fstatfs_type(fd) != PROC_SUPER_MAGIC or os.fstat(fd).st_ino != PROC_ROOT_INO:
        os.close(fd)
        raise OSError(0, "isn't the root of a procfs", path)
    return fd


def real_path(path: str) -> str:
    """Return a directory's path without symbolic links, as the kernel knows it (proc_pid_fd(5)).

    What os.path.realpath() finds by a system call for each component; it answers if this can't.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except OSError:
        return os.path.realpath(path)
    # Outside of our root, or removed while we look (d_path() in the kernel).
    if not found.startswith("/") or found.endswith(" (deleted)"):
        return os.path.realpath(path)
    return found


def read_all(fd: int, most: int = 1 << 30) -> bytes:
    """Return what is left of an open file, at most so many bytes.

    Without the objects that open() makes: in a process of milliseconds they are what costs.
    """
    parts = []
    while most > 0 and (part := os.read(fd, min(most, _CHUNK))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def write_all(fd: int, content: bytes) -> None:
    """Write all of it, in as many write(2) calls as it takes."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def read_at(dirfd: int, path: str) -> str:
    """Return the text of a small file of /proc or /sys below a directory descriptor."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dirfd)
    try:
        return os.read(fd, 1 << 16).decode()
    finally:
        os.close(fd)


def write_at(dirfd: int, path: str, text: str) -> None:
    """Write text by one write(2) to an existing file below a directory descriptor."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dirfd)
    try:
        os.write(fd, text.encode())
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
    finally:
        os.close(fd)
