# SPDX-License-Identifier: GPL-3.0-or-later
"""Unix sockets with names of any length, and descriptors that go over them (unix(7)).

A socket's address holds 108 bytes, and a state directory with a 64-digit id may be longer: so it
is named through its directory's descriptor.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket


def _address(dirfd: int, name: str) -> str:
    return f"/proc/self/fd/{dirfd}/{name}"


def pair(kind: int) -> tuple[int, int]:
    """Return two connected descriptors, close-on-exec (socketpair(2)); kind is SOCK_STREAM ...

    Without the objects of socket.socketpair(), which ask the kernel what they are.
    """
    one, other = _socket.socketpair(socket.AF_UNIX, kind)
    return one.detach(), other.detach()


def bind_in(dirfd: int, name: str) -> socket.socket:
    """Return a listening stream socket bound to a name in a directory. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_address(dirfd, name))
        sock.listen(8)
    except OSError:
        sock.close()
        raise
    return sock


def connect_in(dirfd: int, name: str) -> socket.socket | None:
    """Connect to a socket in a directory; None if nobody listens there any more."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(_address(dirfd, name))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError:
        sock.close()
        raise
    return sock


def connect(path: str) -> socket.socket:
    """Connect to the stream socket at a path. Raises OSError with the path."""
    directory, name = os.path.split(path)
    try:
        place = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock = connect_in(place, name)
        finally:
            os.close(place)
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
    if sock is None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there", path)
    return sock


def send_descriptor(sock: socket.socket, words: bytes, fd: int) -> None:
    """Send words and a descriptor with them (SCM_RIGHTS). Raises OSError."""
    socket.send_fds(sock, [words], [fd])
