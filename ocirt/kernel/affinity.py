# SPDX-License-Identifier: GPL-3.0-or-later
"""Staying on one CPU for a while, and going back to all that were allowed (sched_setaffinity(2)).

Masks are the kernel's, as bytes: a set for each CPU of a large machine takes longer than the call.
"""

from __future__ import annotations

from ocirt.kernel import _linux

# Of 8192 CPUs, the most that Linux is built for.
_LONGEST = 1024
#: All CPUs, for sched_setaffinity(2): what that allows then is what the cpuset has.
EVERY = b"\xff" * _LONGEST

_syscall = _linux.syscall


def stay_here() -> bytes:
    """Bind this process, and those that it makes, to the CPU where it is.

    Returns what go_anywhere() takes, b"" if it can't be bound.
    """
    try:
        before = _allowed()
        _allow(EVERY)
        # All that the cpuset has, unless our caller chose some of them.
        after = EVERY if _allowed() == before else before
        cpu = bytearray(4)
        _syscall(_linux.SYS_getcpu, cpu, None, None)
        _allow((1 << int.from_bytes(cpu, "little")).to_bytes(len(before), "little"))
    except OSError:
        return b""
    return after


def go_anywhere(after: bytes) -> None:
    """Undo stay_here() in one of its processes; its cpuset may be another by now."""
    if not after:
        return
    try:
        _allow(after)
    except OSError:
        # None of those that our caller chose are in the cpuset.
        _allow(EVERY)


def _allowed() -> bytes:
    mask = bytearray(_LONGEST)
    size = _syscall(_linux.SYS_sched_getaffinity, 0, len(mask), mask)
    return bytes(mask[:size])


def _allow(mask: bytes) -> None:
    _syscall(_linux.SYS_sched_setaffinity, 0, len(mask), mask)
