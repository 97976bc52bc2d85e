# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals: those that people name, and those that end us."""

from __future__ import annotations

import re
import signal
from types import FrameType

from ocirt.errors import UsageError
from ocirt.kernel.signals import ENDING, SIG_DFL, SIG_IGN, getsignal
from ocirt.kernel.signals import signal as set_handler

# As bash and systemd write signals that have no name of their own: RTMIN+3.
_RELATIVE = re.compile(r"(?P<from>SIGRTMIN|SIGRTMAX)(?P<offset>[+-][0-9]+)")


def signal_number(text: str) -> int:
    """Return the number of a signal given as 9, KILL, sigkill, RTMIN+3. Raises UsageError."""
    number = _number(text)
    if number is None or not 1 <= number <= signal.SIGRTMAX:
        raise UsageError(
            f"unknown signal {text!r}; give a name such as TERM or a number from 1 to"
            f" {signal.SIGRTMAX:d}"
        )
    return number


def _number(text: str) -> int | None:
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    name = text.upper()
    if not name.startswith("SIG"):
        name = f"SIG{name}"
    if relative := _RELATIVE.fullmatch(name):
        number = signal.Signals[relative["from"]] + int(relative["offset"])
        return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else None
    by_name = signal.Signals.__members__
    return by_name[name].value if name in by_name else None


def clean_up_when_ended() -> None:
    """Turn the signals that would end us into SystemExit: a create takes back what it made.

    One that the caller has us ignore, as nohup(1) does, stays ignored.
    """
    for number in ENDING:
        if getsignal(number) != SIG_IGN:
            set_handler(number, _end)


def hear_of_children() -> None:
    """Let wait(2) return what became of children: not so if the caller has SIGCHLD ignored."""
    if getsignal(signal.SIGCHLD) == SIG_IGN:
        set_handler(signal.SIGCHLD, SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    for other in ENDING:
        if getsignal(other) is _end:
            # Not SIG_IGN: the hooks that the clean-up runs would inherit that.
            set_handler(other, _carry_on)
    raise SystemExit(128 + number)


def _carry_on(number: int, frame: FrameType | None) -> None:
    """Let the clean-up run to its end."""
