# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's mounts with their flags locked: sources of bind mounts for a user namespace.

What is mounted read-only, nosuid, nodev, noexec or noatime on the host stays so in a user
namespace, whose root could remount it otherwise (mount_namespaces(7), "Restrictions on mount
namespaces"). The kernel locks the flags where a mount namespace is copied for another user
namespace. So sources are opened in such a copy, by a helper that has the host's privileges: the
container's own root may not reach them.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import prctl

from ocirt.kernel import constants as k
from ocirt.kernel.mounts import AT_FDCWD, open_tree
from ocirt.kernel.process import clone3, setns

_DONE, _REFUSED = b".", b"!"
_LONGEST_PATH = 1 << 16


@contextmanager
def throwaway(flags: int) -> Iterator[tuple[int, int]]:
    """Make a process in new namespaces that does nothing; yields its pid and pidfd.

    It is gone afterwards, and with it the namespaces, unless somebody else holds them.
    """
    waits, wakes = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = clone3(flags)
    if pid == 0:
        # Ends when it is killed, or with the runtime, whose end of the pipe is the only one.
        os.close(wakes)
        os.read(waits, 1)
        os._exit(0)
    try:
        yield pid, pidfd
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        for end in (pidfd, waits, wakes):
            os.close(end)


class LockedView:
    """A helper in a copy of the mount namespace. It ends when this is closed."""

    def __init__(self) -> None:
        """Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with throwaway(k.CLONE_NEWUSER | k.CLONE_NEWNS) as (_, namespaces):
            self._pid, pidfd = clone3(0)
            if self._pid == 0:
                ours.close()
                _serve(theirs, namespaces)
            os.close(pidfd)
            theirs.close()
            self._socket = ours
            # Until it is there, the copy has to exist.
            self._check(self._socket.recv(8))

    def open(self, path: str, flags: int) -> int:
        """open_tree(2) of a path of the host, in the copy. Raises OSError with the path."""
        self._socket.send(flags.to_bytes(8, "little") + os.fsencode(path))
        answer, descriptors, _, _ = socket.recv_fds(self._socket, 8, 1, socket.MSG_CMSG_CLOEXEC)
        self._check(answer, path)
        return descriptors[0]

    def _check(self, answer: bytes, path: str | None = None) -> None:
        if answer[:1] in (_REFUSED, b""):
            number = int.from_bytes(answer[1:], "little")
            raise OSError(number, os.strerror(number), path)

    def close(self) -> None:
        """Let the helper end."""
        self._socket.close()
        os.waitpid(self._pid, 0)


def _serve(requests: socket.socket, namespaces: int) -> None:
    """Join the copy and open there what is asked for; never returns."""
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        _answer(requests, partial(setns, namespaces, k.CLONE_NEWNS))
        while request := requests.recv(_LONGEST_PATH):
            flags, path = int.from_bytes(request[:8], "little"), os.fsdecode(request[8:])
            _answer(requests, partial(open_tree, AT_FDCWD, path, flags))
    finally:
        os._exit(0)


def _answer(requests: socket.socket, call: Callable[[], int | None]) -> None:
    """Do what was asked for and send its result, a descriptor or nothing, or the errno."""
    try:
        fd = call()
    except OSError as e:
        requests.send(_REFUSED + (e.errno or 0).to_bytes(4, "little"))
        return
    if fd is None:
        requests.send(_DONE)
    else:
        socket.send_fds(requests, [_DONE], [fd])
        os.close(fd)
