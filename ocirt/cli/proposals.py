# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shell may offer for a word of the command line.

The table tells it: an option's value by its metavar or its choices, an argument by its name.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum

from ocirt.cli.table import COMMANDS, Kind, Option, Positional
from ocirt.spec.names import CAPABILITIES


class What(Enum):
    """What a word can be; REST is a command line of its own."""

    NOTHING = "nothing"
    FILE = "file"
    DIRECTORY = "directory"
    CONTAINER = "container"
    WORD = "word"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to offer in a place; words are those of WORD."""

    what: What
    words: tuple[str, ...] = ()


_SIGNALS = tuple(
    name.removeprefix("SIG")
    for name in signal.Signals.__members__
    if not name.startswith(("SIGRT", "SIGCLD", "SIGPOLL"))
)
_NOTHING = Proposal(What.NOTHING)
_BY_METAVAR = {
    "FILE": Proposal(What.FILE),
    "PATH": Proposal(What.FILE),
    "SOCKET": Proposal(What.FILE),
    "DIR": Proposal(What.DIRECTORY),
    "CAP": Proposal(What.WORD, tuple(CAPABILITIES)),
}
_BY_ARGUMENT = {
    "ID": Proposal(What.CONTAINER),
    "SIGNAL": Proposal(What.WORD, _SIGNALS),
    "COMMAND": Proposal(What.WORD, tuple(command.name for command in COMMANDS)),
}


def of_option(option: Option) -> Proposal | None:
    """Return what an option's value can be; None for one without."""
    if option.kind is Kind.FLAG:
        return None
    if option.choices:
        return Proposal(What.WORD, option.choices)
    return _BY_METAVAR.get(option.metavar, _NOTHING)


def of_argument(argument: Positional) -> Proposal:
    """Return what an argument can be."""
    if argument.rest:
        return Proposal(What.REST)
    if argument.new:
        return _NOTHING
    return _BY_ARGUMENT.get(argument.name, _NOTHING)
