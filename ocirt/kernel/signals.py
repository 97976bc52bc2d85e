# SPDX-License-Identifier: GPL-3.0-or-later
"""Signal handling with plain numbers.

The standard library's signal wraps these very functions to turn each number into an enum member;
for a set of 64 signals that takes longer than the system call. Numbers compare equal to members.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import struct
from _signal import getsignal, pthread_sigmask, signal, sigtimedwait
from functools import lru_cache

from ocirt.kernel import _linux

SIG_BLOCK = int(_signal.SIG_BLOCK)
SIG_SETMASK = int(_signal.SIG_SETMASK)
SIG_UNBLOCK = int(_signal.SIG_UNBLOCK)
SIG_DFL = int(_signal.SIG_DFL)
SIG_IGN = int(_signal.SIG_IGN)

#: All but the two that glibc keeps for itself.
ALL: frozenset[int] = frozenset(map(int, _signal.valid_signals()))

#: Those by which people and engines end a program, and by which we end only after a clean-up.
ENDING = (int(_signal.SIGINT), int(_signal.SIGTERM), int(_signal.SIGHUP))

# struct signalfd_siginfo: the number, and what nobody here wants to know.
_SIGNALFD_INFO = struct.Struct("=I124x")


@lru_cache
def mask_of(numbers: frozenset[int] | tuple[int, ...]) -> int:
    """Return a set of signals as the kernel's sigset_t: bit n - 1 is signal n.

    The same few masks are asked for again and again.
    """
    return sum(1 << number - 1 for number in numbers)


def signalfd(numbers: frozenset[int] | tuple[int, ...]) -> int:
    """Return a descriptor from which blocked signals are read as they arrive (signalfd(2))."""
    mask = mask_of(numbers)
    return _linux.syscall(_linux.SYS_signalfd4, -1, struct.pack("=Q", mask), 8, os.O_CLOEXEC)


def read_signalfd(fd: int) -> int:
    """Wait for a signal and return its number. Raises OSError."""
    return int(_SIGNALFD_INFO.unpack(os.read(fd, _SIGNALFD_INFO.size))[0])


__all__ = [
    "ALL",
    "ENDING",
    "SIG_BLOCK",
    "SIG_DFL",
    "SIG_IGN",
    "SIG_SETMASK",
    "SIG_UNBLOCK",
    "getsignal",
    "mask_of",
    "pthread_sigmask",
    "read_signalfd",
    "signal",
    "signalfd",
    "sigtimedwait",
]
