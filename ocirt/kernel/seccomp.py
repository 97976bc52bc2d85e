# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel knows of seccomp(2)."""

from __future__ import annotations

import errno

from ocirt.kernel import _linux
from ocirt.kernel.constants import SECCOMP_SET_MODE_FILTER


def supports_flags(flags: int) -> bool:
    """Whether seccomp(2) takes these SECCOMP_FILTER_FLAG_ bits: the manual's way to find out.

    Without a filter the call fails in any case; with flags that it knows, for want of the filter.
    """
    try:
        _linux.syscall(_linux.SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, None)
    except OSError as e:
        return e.errno == errno.EFAULT
    return False
