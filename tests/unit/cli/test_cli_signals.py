# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and numbers of signals."""

from __future__ import annotations

import signal

import pytest

from ocirt.cli.signals import signal_number
from ocirt.errors import UsageError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigkill", 9),
        ("Term", 15),
        ("usr1", signal.SIGUSR1),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
        ("1", 1),
        ("64", 64),
    ],
)
def test_a_signal_has_many_names(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-9", "+9", "²", "9 ", "FOO", "SIG", "SIG_IGN", "SIGRTMIN+99", "RTMAX+1"],
)
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(UsageError, match="unknown signal"):
        signal_number(text)


def test_a_number_of_thousands_of_digits() -> None:
    with pytest.raises(UsageError, match="unknown signal"):
        signal_number("9" * 5000)
