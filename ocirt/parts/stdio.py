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

_NULL_DEVICE = os.makedev(1, 3)


@dataclass(frozen=True, slots=True)
class OwnStdio:
    """Give stdin, stdout and stderr to the program's user, as runc does.

    Only pipes and terminals: never a file of the host's, nor /dev/null, whose owner
    would change for everybody.
    """

    uid: int

    def run(self, c: Context) -> None:
        for fd in (0, 1, 2):
            try:
                found = os.fstat(fd)
                if found.st_uid == self.uid or not _may_change_owner(found):
                    continue
                os.fchown(fd, self.uid, -1)
            except OSError as e:
                # Closed, not mapped in this user namespace, not ours, or read-only.
                if e.errno not in (errno.EBADF, errno.EINVAL, errno.EPERM, errno.EROFS):
                    raise


def _may_change_owner(found: os.stat_result) -> bool:
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev != _NULL_DEVICE
    return stat.S_ISFIFO(found.st_mode)


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
