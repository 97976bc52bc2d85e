# SPDX-License-Identifier: GPL-3.0-or-later
"""Unix sockets below a directory descriptor.

A socket's address holds 108 bytes (unix(7)), and a state directory with a 64-digit id may be
longer: so it is named through the directory's descriptor.
"""

from __future__ import annotations

import socket


def _address(dirfd: int, name: str) -> str:
    return f"/proc/self/fd/{dirfd}/{name}"


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
