# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of CPUs and nodes as masks."""

from __future__ import annotations

import pytest

from ocirt.errors import OcirtError
from ocirt.parts.scheduling import cpu_mask, list_mask


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", {0}),
        ("0-3,7", {0, 1, 2, 3, 7}),
        (" 1 , 2-2", {1, 2}),
        ("63,64", {63, 64}),
        ("3,3,1-3", {1, 2, 3}),
        ("8191", {8191}),
    ],
)
def test_masks(text: str, numbers: set[int]) -> None:
    mask = list_mask(text, "/x")
    assert len(mask) % 8 == 0
    value = int.from_bytes(mask, "little")
    assert {n for n in range(8192) if value >> n & 1} == numbers
    assert cpu_mask(numbers) == mask


@pytest.mark.parametrize("text", ["", ",", "a", "1-", "-1", "2-1", "8192", "0-99999", "1--2", "²"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(OcirtError, match="/x"):
        list_mask(text, "/x")
