# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of D-Bus's in their text form."""

from __future__ import annotations

import pytest

from ocirt.spec.gvariant import is_value


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "5",
        "-5",
        "0x1f",
        "1.5e3",
        "uint64 5000000",
        "'inactive-or-failed'",
        '"a \\" b"',
        "['a', 'b',]",
        "@as []",
        "[('/dev/x', uint64 5), ('/dev/y', 6)]",
        "  ( 'a' , true )  ",
        "byte 0x0a",
    ],
)
def test_values(text: str) -> None:
    assert is_value(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ten",
        "'open",
        "[1",
        "1]",
        "1 2",
        "[1 2]",
        "uint64",
        "(,)",
        "5x",
        "uint99 4",
        "'a' 'b'",
        "[" * 9999,
    ],
)
def test_what_is_none(text: str) -> None:
    assert not is_value(text)
