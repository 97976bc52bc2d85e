# SPDX-License-Identifier: GPL-3.0-or-later
"""ENOSYS for system calls newer than a profile: a few instructions in front of libseccomp's.

A profile that allows what its author knew refuses everything younger, mostly by EPERM. Programs
take EPERM as the answer; only after ENOSYS do they try the older call that the profile allows. So
what is newer than the newest call that the profile names is answered as by an older kernel.

"Newer" is a greater number: architectures append new calls to their table. The instructions are
those of classic BPF (Documentation/networking/filter.rst), on struct seccomp_data (seccomp(2)):

        ld  [arch]
        jeq #ARCH, 0, to the next section
        ld  [nr]                                        one section per architecture of the kernel
        jgt #newest, 0, 2                               three instructions per range: x32 is one
        jge #end, 1, 0                                  more of AUDIT_ARCH_X86_64
        ret #ERRNO(ENOSYS)
        ja  to libseccomp's first instruction
        ...

All of them are among those by which the kernel finds out, when it loads a filter, which calls are
always allowed (seccomp_is_const_allow() in kernel/seccomp.c), so these don't become slower.
"""

from __future__ import annotations

import errno
import struct

TYPE_CHECKING = False  # as in seccomp_compile
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NR, _ARCH = 0, 4  # offsets in struct seccomp_data
_LD, _JA, _JEQ, _JGT, _JGE, _RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06  # linux/bpf_common.h
_ENOSYS = 0x00050000 | errno.ENOSYS  # SECCOMP_RET_ERRNO

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, if false, constant

# A default of these doesn't refuse: what a tracer is asked about, it can answer itself.
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")


#: Where an architecture's system calls are: AUDIT_ARCH_ (linux/audit.h), and the end of its
#: numbers. What is at the end or above is for libseccomp to judge; -1 is no system call but a
#: tracer's way to skip one. The keys are the names of config.json, without SCMP_ARCH_, of what can
#: run on the machines that ocirt knows.
NUMBERS = {
    # From there x32's are, which are a foreign architecture's if the profile doesn't name x32.
    "X86_64": (0xC000003E, 0x40000000),
    "X32": (0xC000003E, 0xFFFFFFFF),
    "X86": (0x40000003, 0xFFFFFFFF),
    "AARCH64": (0xC00000B7, 0xFFFFFFFF),
    # From there are those that only this architecture has, as set_tls.
    "ARM": (0x40000028, 0x000F0000),
}


def wanted(default_action: str, default_errno: int | None) -> bool:
    """Whether a profile's default refuses in a way that ENOSYS would be better."""
    return default_action not in PERMISSIVE and default_errno != errno.ENOSYS


def prologue(newest: Mapping[str, int]) -> bytes:
    """Return the instructions that go before libseccomp's.

    newest has the greatest number that the profile names, by architecture (keys of NUMBERS).
    """
    sections: dict[int, list[bytes]] = {}
    for name, number in newest.items():
        audit, end = NUMBERS[name]
        # A profile may name a call beyond the end: ARM's own ones. Then nothing is newer.
        if number + 1 < end:
            sections.setdefault(audit, []).append(_range(number, end))
    if not sections:
        return b""
    return _assemble([(audit, b"".join(ranges)) for audit, ranges in sections.items()])


def _range(newest: int, end: int) -> bytes:
    """Return three instructions: ENOSYS for newest < nr < end, or go on after them."""
    return b"".join(
        (
            INSTRUCTION.pack(_JGT, 0, 2, newest),
            INSTRUCTION.pack(_JGE, 1, 0, end),
            INSTRUCTION.pack(_RET, 0, 0, _ENOSYS),
        )
    )


def _assemble(sections: Sequence[tuple[int, bytes]]) -> bytes:
    load_number = INSTRUCTION.pack(_LD, 0, 0, _NR)
    bodies = [(audit, load_number + ranges) for audit, ranges in sections]
    # Each section has a jeq before it and a ja after it.
    left = sum(_length(body) + 2 for _, body in bodies)
    parts = [INSTRUCTION.pack(_LD, 0, 0, _ARCH)]
    for audit, body in bodies:
        left -= _length(body) + 2
        parts += [
            INSTRUCTION.pack(_JEQ, 0, _length(body) + 1, audit),
            body,
            INSTRUCTION.pack(_JA, 0, 0, left),
        ]
    return b"".join(parts)


def _length(code: bytes) -> int:
    return len(code) // INSTRUCTION.size
