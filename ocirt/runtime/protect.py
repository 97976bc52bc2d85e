# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping the runtime's file out of a container's reach (CVE-2019-5736).

In a pid namespace that others share, a process with CAP_SYS_PTRACE in the host's user namespace
can open /proc/PID/exe of our init while that still is the interpreter, and write to the host's
file by it once it runs nowhere. There the runtime first starts anew from a clone of its own mount
that is read-only for good: whoever opens the file through it can't write, by whatever detour.
Everywhere else init is alone in its pid namespace until it has become the stub.
"""

from __future__ import annotations

import os
import sys

from ocirt.kernel.constants import AT_FDCWD, MOUNT_ATTR_RDONLY, OPEN_TREE_CLONE
from ocirt.kernel.mounts import mount_setattr, open_tree
from ocirt.spec.model import Config, NamespaceType

_OWN_FILE = "/proc/self/exe"


def protect_executable(config: Config) -> None:
    """Execute this program again, protected, if the container's pid namespace isn't a new one.

    Call it before anything was made. Returns if there is nothing to do. Raises OSError.
    """
    own = any(n.type is NamespaceType.PID and not n.path for n in config.linux.namespaces)
    if own or is_protected():
        return
    try:
        clone = open_tree(AT_FDCWD, _OWN_FILE, OPEN_TREE_CLONE)
        mount_setattr(clone, 0, attr_set=MOUNT_ATTR_RDONLY)
    except PermissionError:
        # Without privilege nobody in the container has the capability that this is about.
        return
    os.execv(f"/proc/self/fd/{clone}", sys.orig_argv)


def is_protected() -> bool:
    """Tell whether this program runs from a mount that can't be written to."""
    return bool(os.statvfs(_OWN_FILE).f_flag & os.ST_RDONLY)
