# SPDX-License-Identifier: GPL-3.0-or-later
"""The prologue that answers ENOSYS: numbers around every border, in front of a dummy filter."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.parts.seccomp_enosys import NUMBERS, prologue, wanted
from tests.unit.parts import bpf

# What stands for libseccomp's program; it loads the architecture first, as that does.
REST = struct.pack("=HBBIHBBI", 0x20, 0, 0, 4, 0x06, 0, 0, 0x1234)
PASSED_ON = 0x1234
ENOSYS = bpf.ERRNO | errno.ENOSYS


def answer(newest: dict[str, int], number: int, arch: int = bpf.X86_64) -> int:
    return bpf.run(prologue(newest) + REST, number, arch)


def test_what_is_newer() -> None:
    for number in (0, 1, 449, 450):
        assert answer({"X86_64": 450}, number) == PASSED_ON
    for number in (451, 452, 1000, bpf.X32 - 1):
        assert answer({"X86_64": 450}, number) == ENOSYS


def test_what_isnt_this_architectures() -> None:
    """x32 where the profile doesn't name it, a tracer's -1, i386: for libseccomp to judge."""
    for number in (bpf.X32, bpf.X32 + 1000, -1, -2):
        assert answer({"X86_64": 450}, number) == PASSED_ON
    assert answer({"X86_64": 450}, 1000, bpf.I386) == PASSED_ON


def test_several_architectures() -> None:
    newest = {"X86_64": 450, "X86": 440, "X32": bpf.X32 + 547}
    assert answer(newest, 441, bpf.X86_64) == PASSED_ON
    assert answer(newest, 451, bpf.X86_64) == ENOSYS
    assert answer(newest, 440, bpf.I386) == PASSED_ON
    assert answer(newest, 441, bpf.I386) == ENOSYS
    assert answer(newest, bpf.X32 + 441, bpf.I386) == ENOSYS
    assert answer(newest, bpf.X32 + 547, bpf.X86_64) == PASSED_ON
    assert answer(newest, bpf.X32 + 548, bpf.X86_64) == ENOSYS
    assert answer(newest, -1, bpf.X86_64) == PASSED_ON
    assert answer(newest, -1, bpf.I386) == PASSED_ON
    assert answer(newest, 1000, bpf.AARCH64) == PASSED_ON


def test_arms_own_calls() -> None:
    for number, expected in ((440, PASSED_ON), (441, ENOSYS), (0xF0005, PASSED_ON)):
        assert answer({"AARCH64": 9, "ARM": 440}, number, bpf.ARM) == expected
    # A profile that names one of them: nothing is newer.
    assert answer({"ARM": 0xF0005}, 1000, bpf.ARM) == PASSED_ON


def test_nothing_named() -> None:
    assert prologue({}) == b""


@given(
    st.dictionaries(st.sampled_from(sorted(NUMBERS)), st.integers(0, (1 << 32) - 1)),
    st.integers(0, (1 << 32) - 1),
    st.sampled_from([bpf.X86_64, bpf.I386, bpf.AARCH64, bpf.ARM, 0]),
)
def test_as_a_formula(newest: dict[str, int], number: int, arch: int) -> None:
    expected = any(
        arch == NUMBERS[name][0] and greatest < number < NUMBERS[name][1]
        for name, greatest in newest.items()
    )
    assert (answer(newest, number, arch) == ENOSYS) == expected


@pytest.mark.parametrize(
    ("action", "number", "expected"),
    [
        ("SCMP_ACT_ERRNO", None, True),
        ("SCMP_ACT_ERRNO", errno.EPERM, True),
        ("SCMP_ACT_ERRNO", errno.ENOSYS, False),
        ("SCMP_ACT_KILL", None, True),
        ("SCMP_ACT_KILL_PROCESS", None, True),
        ("SCMP_ACT_TRAP", None, True),
        ("SCMP_ACT_ALLOW", None, False),
        ("SCMP_ACT_LOG", None, False),
        ("SCMP_ACT_TRACE", None, False),
    ],
)
def test_for_which_defaults(action: str, number: int | None, expected: bool) -> None:
    assert wanted(action, number) is expected
