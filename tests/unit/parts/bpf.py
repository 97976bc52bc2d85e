# SPDX-License-Identifier: GPL-3.0-or-later
"""A seccomp filter run as the kernel runs it (net/core/filter.c), to see what it decides."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

_INSTRUCTION = struct.Struct("=HBBI")
# struct seccomp_data: nr, arch, instruction_pointer, args. Little endian, as x86-64 and arm64 are.
_DATA = struct.Struct("<IIQ6Q")

LOAD, RETURN, JUMP, AND = 0x20, 0x06, 0x05, 0x54
COMPARE: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: bool(a & k),
}
LONGEST = 4096

ALLOW, LOG, NOTIFY, TRACE, ERRNO, TRAP = (
    0x7FFF0000,
    0x7FFC0000,
    0x7FC00000,
    0x7FF00000,
    0x00050000,
    0x00030000,
)
KILL_THREAD, KILL_PROCESS = 0, 0x80000000

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
X32 = 0x40000000  # in a system call's number


def run(program: bytes, number: int, arch: int = X86_64, args: Sequence[int] = ()) -> int:
    """Return what the filter says about a system call (SECCOMP_RET_ and its data)."""
    assert 0 < len(program) // 8 <= LONGEST and len(program) % 8 == 0
    data = _DATA.pack(number & 0xFFFFFFFF, arch, 0, *args, *[0] * (6 - len(args)))
    position, a = 0, 0
    while True:
        # A jump beyond the end is a struct.error here; the kernel refuses to load such a program.
        code, if_true, if_false, k = _INSTRUCTION.unpack_from(program, position * 8)
        position += 1
        if code == LOAD:
            assert k % 4 == 0
            (a,) = struct.unpack_from("<I", data, k)
        elif code == AND:
            a &= k
        elif code == JUMP:
            position += k
        elif code in COMPARE:
            position += if_true if COMPARE[code](a, k) else if_false
        elif code == RETURN:
            return int(k)
        else:
            raise AssertionError(f"instruction {code:#x} isn't one of libseccomp's")
