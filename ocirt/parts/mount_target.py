# SPDX-License-Identifier: GPL-3.0-or-later
"""Where something may be mounted: not on the rootfs itself, and in /proc hardly anywhere."""

from __future__ import annotations

import os
from enum import Enum

from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.files import PROC_ROOT_INO, fstatfs_type
from ocirt.parts.step import Context

# What a container may mount over in /proc: lxcfs's files and two of CRIU's and FIPS's. Anything
# else there could hide or forge what the runtime itself relies on.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    )
)


class Mounted(Enum):
    """What is to be mounted, as far as it matters in /proc."""

    PROC = "a procfs"
    BIND = "a file or directory of the host"
    OTHER = "something else"


def check_target(c: Context, target: int, destination: str, mounted: Mounted) -> None:
    """Refuse the rootfs itself, and what isn't allowed at and inside /proc. Raises OcirtError.

    On /proc itself goes only a procfs; inside, as in runc, only a few files.
    """
    here, top = os.fstat(target), os.fstat(c.root.fd)
    if (here.st_dev, here.st_ino) == (top.st_dev, top.st_ino):
        raise OcirtError(f"{destination}: mountpoint is on the top of rootfs")
    in_proc = fstatfs_type(target) == k.PROC_SUPER_MAGIC
    if not in_proc and "proc" not in destination:
        return
    path = os.path.normpath("/" + destination.lstrip("/"))
    if path == "/proc" or (in_proc and here.st_ino == PROC_ROOT_INO):
        if mounted is not Mounted.PROC:
            raise OcirtError(f"{destination}: can't be mounted because it is not of type proc")
        return
    if not in_proc and not path.startswith("/proc/"):
        return
    if mounted is Mounted.BIND and path in _PROC_FILES:
        return
    raise OcirtError(
        f"{destination}: can't be mounted because it is inside /proc; only"
        f" {', '.join(sorted(_PROC_FILES))} may be replaced there"
    )
