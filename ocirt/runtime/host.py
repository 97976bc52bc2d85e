# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the facts about the host that a plan depends on."""

from __future__ import annotations

import os
import re

from ocirt.cgroups.layout import detect
from ocirt.kernel.constants import AT_FDCWD
from ocirt.kernel.files import read_at
from ocirt.plan.host import Host

_CAP_SYS_ADMIN = 21
_CAPABILITIES = re.compile(r"^(Cap\w+):\s*(\w+)$", re.MULTILINE)
# There while SELinux is enabled (selinuxfs).
_SELINUX = "/sys/fs/selinux/enforce"
# /proc/self/uid_map of the host's first user namespace.
_ALL_IDS = [0, 0, 4294967295]


def read_host() -> Host:
    """Look at this process and machine. Raises OSError."""
    capabilities = _capabilities()
    return Host(
        layout=detect(),
        privileged=bool(capabilities["CapEff"] & 1 << _CAP_SYS_ADMIN),
        in_user_namespace=_in_user_namespace(),
        last_cap=last_capability(),
        bounding=capabilities["CapBnd"],
        uid=os.geteuid(),
        selinux=os.access(_SELINUX, os.F_OK),
    )


def last_capability() -> int:
    """Return the number of the kernel's last capability (capabilities(7)). Raises OSError."""
    return int(read_at(AT_FDCWD, "/proc/sys/kernel/cap_last_cap"))


def bounding_set() -> int:
    """Return the mask of this process's bounding set (capabilities(7)). Raises OSError."""
    return _capabilities()["CapBnd"]


def _capabilities() -> dict[str, int]:
    """Return the masks of proc_pid_status(5) by their names."""
    text = read_at(AT_FDCWD, "/proc/self/status")
    return {name: int(mask, 16) for name, mask in _CAPABILITIES.findall(text)}


def _in_user_namespace() -> bool:
    return [int(n) for n in read_at(AT_FDCWD, "/proc/self/uid_map").split()] != _ALL_IDS
