# SPDX-License-Identifier: GPL-3.0-or-later
"""Short reads and writes of the kernel's interface files, with as few system calls as possible."""

from __future__ import annotations

import errno
import os

_READ = os.O_RDONLY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CLOEXEC

# A cgroup removed under our feet: open says ENOENT, an open file ENODEV.
GONE = (errno.ENOENT, errno.ENODEV)


def read(path: str, dir_fd: int | None = None) -> str:
    """Return a whole file as text. Raises OSError, with the path."""
    fd = os.open(path, _READ, dir_fd=dir_fd)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
    finally:
        os.close(fd)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def write(path: str, text: str) -> None:
    """Write text by one write(2) to an existing file. Raises OSError, with the path."""
    fd = os.open(path, _WRITE)
    try:
        os.write(fd, text.encode())
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
    finally:
        os.close(fd)
