# SPDX-License-Identifier: GPL-3.0-or-later
"""Help texts, from the table."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator

from ocirt.cli.table import ABOUT, COMMANDS, GLOBALS, Command, Kind, Option, Positional

_WIDTH = 80
# Where what something means begins: in lists of commands and arguments, and of options.
_COMMAND_COLUMN = 14
_OPTION_COLUMN = 31


def overview() -> str:
    """Return what `ocirt --help` prints."""
    lines = [
        *textwrap.wrap(ABOUT, _WIDTH),
        "",
        "Usage: ocirt [global options] COMMAND [options] [arguments]",
    ]
    for group, commands in itertools.groupby(COMMANDS, lambda command: command.group):
        lines += ["", f"{group}:"]
        lines += _pairs(((c.name, c.summary) for c in commands), _COMMAND_COLUMN)
    lines += ["", "Global options:", *_options(GLOBALS)]
    lines += ["", "`ocirt COMMAND --help` explains a command."]
    return _text(lines)


def of_command(command: Command) -> str:
    """Return what `ocirt COMMAND --help` prints."""
    usage = ["ocirt", command.name, *(["[options]"] if command.options else [])]
    usage += [_shape(positional) for positional in command.positionals]
    lines = [f"{command.summary}.", "", f"Usage: {' '.join(usage)}"]
    if command.description:
        lines += ["", *textwrap.wrap(command.description, _WIDTH)]
    if command.positionals:
        lines += ["", "Arguments:"]
        lines += _pairs(((p.name, p.help) for p in command.positionals), _COMMAND_COLUMN)
    if command.options:
        lines += ["", "Options:", *_options(command.options)]
    if command.examples:
        lines += ["", "Examples:"]
        column = max(len(line) for line, _ in command.examples) + 5
        lines += _pairs(command.examples, column)
    lines += ["", "`ocirt --help` lists the global options."]
    return _text(lines)


def _shape(positional: Positional) -> str:
    name = f"{positional.name}..." if positional.rest else positional.name
    return name if positional.required else f"[{name}]"


def _options(options: Iterable[Option]) -> Iterator[str]:
    shown = (option for option in options if not option.hidden)
    return _pairs(((_names(o), meaning(o)) for o in shown), _OPTION_COLUMN)


def _names(option: Option) -> str:
    short = f"-{option.short}, " if option.short else "    "
    return f"{short}--{option.name} {option.metavar}".rstrip()


def meaning(option: Option) -> str:
    """Return what an option does, with the values it takes and the default."""
    text = option.help
    if option.choices:
        text += f": {', '.join(option.choices)}"
    if option.repeatable:
        text += " (can be repeated)"
    if option.kind is not Kind.FLAG and option.default is not None:
        text += f" (default {option.default})"
    return text


def _pairs(pairs: Iterable[tuple[str, str]], column: int) -> Iterator[str]:
    """Yield lines with a name on the left and its meaning, wrapped, from a column on."""
    for name, meaning in pairs:
        first, *more = textwrap.wrap(meaning, _WIDTH - column)
        if len(name) + 4 > column:
            yield f"  {name}"
            yield " " * column + first
        else:
            yield f"  {name}".ljust(column) + first
        yield from (" " * column + line for line in more)


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
