# SPDX-License-Identifier: GPL-3.0-or-later
"""Signal handling with plain numbers.

The standard library's signal wraps these very functions to turn each number into an enum member;
for a set of 64 signals that takes longer than the system call. Numbers compare equal to members.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from _signal import getsignal, pthread_sigmask, signal, sigtimedwait, sigwait

SIG_BLOCK = int(_signal.SIG_BLOCK)
SIG_SETMASK = int(_signal.SIG_SETMASK)
SIG_DFL = int(_signal.SIG_DFL)
SIG_IGN = int(_signal.SIG_IGN)

#: All but the two that glibc keeps for itself.
ALL: frozenset[int] = frozenset(map(int, _signal.valid_signals()))

__all__ = [
    "ALL",
    "SIG_BLOCK",
    "SIG_DFL",
    "SIG_IGN",
    "SIG_SETMASK",
    "getsignal",
    "pthread_sigmask",
    "signal",
    "sigtimedwait",
    "sigwait",
]
