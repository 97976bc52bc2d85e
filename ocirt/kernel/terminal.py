# SPDX-License-Identifier: GPL-3.0-or-later
"""Terminals: ioctl_tty(2) and what of termios(3) a runtime needs.

The termios module isn't used: the pre-initialised executable doesn't have it. All functions raise
OSError.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from fcntl import ioctl
from typing import NamedTuple

from ocirt.kernel import constants as k

# struct termios of the kernel (asm-generic/termbits.h): four flag words, c_line, 19 of c_cc.
_TERMIOS = struct.Struct("=IIIIB19s")
_WINSIZE = struct.Struct("=HHHH")
_VMIN, _VTIME = 6, 5

# asm-generic/termbits.h
_IGNBRK, _BRKINT, _PARMRK, _ISTRIP = 0o1, 0o2, 0o10, 0o40
_INLCR, _IGNCR, _ICRNL, _IXON = 0o100, 0o200, 0o400, 0o2000
_IUTF8 = 0o40000
_ONLCR = 0o4
_CSIZE, _CS8, _PARENB = 0o60, 0o60, 0o400
_ISIG, _ICANON, _ECHO, _ECHONL, _IEXTEN = 0o1, 0o2, 0o10, 0o100, 0o100000


class Size(NamedTuple):
    """A terminal's size in characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Attributes:
    """A terminal's settings (termios(3))."""

    input: int
    output: int
    control: int
    local: int
    line: int
    characters: bytes


def is_terminal(fd: int) -> bool:
    """Whether a descriptor refers to a terminal (isatty(3))."""
    return os.isatty(fd)


def tcgetattr(fd: int) -> Attributes:
    """tcgetattr(3)."""
    return Attributes(*_TERMIOS.unpack(ioctl(fd, k.TCGETS, bytes(_TERMIOS.size))))


def tcsetattr(fd: int, a: Attributes) -> None:
    """tcsetattr(3) with TCSADRAIN: after what was written has gone out."""
    words = _TERMIOS.pack(a.input, a.output, a.control, a.local, a.line, a.characters)
    ioctl(fd, k.TCSETSW, words)


def raw(a: Attributes) -> Attributes:
    """Return settings for passing every byte on, as cfmakeraw(3) does, but for the output's.

    The container's own terminal doesn't turn line feeds into CR LF (without_onlcr()), so this one
    goes on doing it.
    """
    characters = bytearray(a.characters)
    characters[_VMIN], characters[_VTIME] = 1, 0
    return replace(
        a,
        input=a.input & ~(_IGNBRK | _BRKINT | _PARMRK | _ISTRIP | _INLCR | _IGNCR | _ICRNL | _IXON),
        control=a.control & ~(_CSIZE | _PARENB) | _CS8,
        local=a.local & ~(_ECHO | _ECHONL | _ICANON | _ISIG | _IEXTEN),
        characters=bytes(characters),
    )


def without_onlcr(a: Attributes) -> Attributes:
    """Return settings that write a line feed as it is."""
    return replace(a, output=a.output & ~_ONLCR)


def in_utf8_as(a: Attributes, other: Attributes) -> Attributes:
    """Return settings that erase characters, or bytes, as those of another terminal do."""
    return replace(a, input=a.input & ~_IUTF8 | other.input & _IUTF8)


def get_size(fd: int) -> Size:
    """TIOCGWINSZ(2const)."""
    rows, columns, _, _ = _WINSIZE.unpack(ioctl(fd, k.TIOCGWINSZ, bytes(_WINSIZE.size)))
    return Size(rows, columns)


def set_size(fd: int, size: Size) -> None:
    """TIOCSWINSZ(2const): the foreground processes get SIGWINCH if it changes something."""
    ioctl(fd, k.TIOCSWINSZ, _WINSIZE.pack(size.rows, size.columns, 0, 0))


def unlock(master: int) -> None:
    """unlockpt(3)."""
    ioctl(master, k.TIOCSPTLCK, struct.pack("=i", 0))


def open_peer(master: int) -> int:
    """Return the other end of a pseudoterminal (TIOCGPTPEER): no path is looked up for it."""
    return ioctl(master, k.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def make_controlling(fd: int) -> None:
    """TIOCSCTTY(2const): the session's controlling terminal; the caller leads a session."""
    ioctl(fd, k.TIOCSCTTY, 0)
