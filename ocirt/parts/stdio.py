# SPDX-License-Identifier: GPL-3.0-or-later
"""The container's descriptors: stdio passed through and owned, everything else closed."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from ocirt.kernel import constants as k
from ocirt.kernel.process import close_range
from ocirt.parts.step import Context


@dataclass(frozen=True, slots=True)
class OwnStdio:
    """Give stdin, stdout and stderr to the program's user, as runc does."""

    uid: int
    descriptors: tuple[int, ...] = (0, 1, 2)

    def run(self, c: Context) -> None:
        for fd in self.descriptors:
            try:
                if may_change_owner(fd):
                    os.fchown(fd, self.uid, -1)
            except OSError as e:
                # Not mapped in this user namespace, not ours, or read-only.
                if e.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                    raise


def may_change_owner(fd: int) -> bool:
    """Whether a descriptor's file is the container's to own: a pipe or a terminal.

    Never another device of the host's, such as /dev/null, nor a file: the owner would change for
    everybody. False for a descriptor that isn't open.
    """
    try:
        return os.isatty(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from first on close-on-exec (close_range(2))."""
    try:
        close_range(first, k.FD_MAX, k.CLOSE_RANGE_CLOEXEC)
    except OSError as e:
        # CLOSE_RANGE_CLOEXEC came with 5.11; a sandbox around us may forbid the call.
        if e.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            if fd >= first:
                try:
                    os.set_inheritable(fd, False)
                except OSError:
                    pass  # the descriptor of the listing itself
