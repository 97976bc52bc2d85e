# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's arithmetic and its report."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from bench.bundles import profile
from bench.report import Row, svg, table

NAMES = ("ocirt", "crun", "runc")


def row(operation: str = "run", mode: str = "back to back") -> Row:
    return Row(operation, mode, {"ocirt": [4.0, 5.0, 9.0], "crun": [10.0], "runc": []})


def test_medians_spread_and_ratios() -> None:
    assert row().median("ocirt") == 5.0
    assert row().spread("ocirt") == pytest.approx(5.0)
    assert row().spread("crun") == 0
    assert row().ratio("crun") == 0.5
    assert row().ratio("runc") is None


def test_the_table_says_what_was_met() -> None:
    text = table([row(), row(mode="idle"), row("list of 3")], NAMES)
    met, missed, none = text.splitlines()[2:]
    assert "0.50 (met: ≤ 0.6)" in met
    assert "0.50 (missed: ≤ 0.35)" in missed
    assert "| 0.50 | - |" in none


def test_the_picture_is_well_formed() -> None:
    root = ET.fromstring(svg([row(), row("a <b>")], NAMES))
    assert len(root.findall("{*}rect")) == 6


def test_the_picture_of_nothing() -> None:
    ET.fromstring(svg([], NAMES))


def test_the_profile_is_as_big_as_podmans() -> None:
    rules = profile()["syscalls"]
    assert len(rules[0]["names"]) > 300
    assert {"read", "execve"} <= set(rules[0]["names"])
    assert "ptrace" not in rules[0]["names"]
