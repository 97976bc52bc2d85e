# SPDX-License-Identifier: GPL-3.0-or-later
"""argv to values, by the table.

Accepts what people and engines write: --name value, --name=value, -n value, -n=value, and long
options with a single dash, as Go programs take them. Options stand anywhere; -- ends them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ocirt.cli.table import BY_NAME, COMMANDS, GLOBALS, Command, Kind, Option
from ocirt.errors import UsageError

Value = str | int | bool | None

_TRUE = ("true", "1", "t")
_FALSE = ("false", "0", "f")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A parsed command line; command is None when only global options were given."""

    command: Command | None
    values: Mapping[str, Value]
    globals: Mapping[str, Value]
    arguments: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return an option's value that has a default."""
        return str(self.values[name])

    def maybe(self, name: str) -> str | None:
        """Return an option's value, None if it wasn't given."""
        value = self.values[name]
        return None if value is None else str(value)

    def number(self, name: str) -> int:
        """Return a number's value."""
        return int(self.values[name] or 0)

    def flag(self, name: str) -> bool:
        """Whether a flag was given."""
        return bool(self.values[name])


def parse(argv: Sequence[str]) -> Invocation:
    """Parse a command line without the program's name. Raises UsageError."""
    global_values: dict[str, Value] = {o.name: o.default for o in GLOBALS}
    values: dict[str, Value] = {}
    words: list[str] = []
    command: Command | None = None
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word.startswith("-") and word != "-":
            # A command's own option goes before a global one of the same name.
            option, attached = _find(word, command)
            target = values if command and option in command.options else global_values
            target[option.name] = _value(option, word, attached, rest)
        elif command is None:
            command = _command(word)
            values = {o.name: o.default for o in command.options}
        else:
            words.append(word)
    wants_help = bool(global_values["help"])
    arguments = _arguments(command, words, strict=not wants_help) if command else {}
    return Invocation(command, values, global_values, arguments)


def _command(word: str) -> Command:
    if word in BY_NAME:
        return BY_NAME[word]
    near = difflib.get_close_matches(word, [c.name for c in COMMANDS], 1)
    hint = f"; did you mean {near[0]!r}?" if near else "; `ocirt help` lists them"
    raise UsageError(f"unknown command {word!r}{hint}")


def _find(word: str, command: Command | None) -> tuple[Option, str | None]:
    name, equals, attached = word.lstrip("-").partition("=")
    options = (*(command.options if command else ()), *GLOBALS)
    for option in options:
        if name == option.name or (name == option.short and not word.startswith("--")):
            return option, attached if equals else None
    near = difflib.get_close_matches(name, [o.name for o in options], 1)
    of = f" of `ocirt {command.name}`" if command else ""
    where = f"`ocirt {command.name} --help`" if command else "`ocirt --help`"
    hint = f"; did you mean --{near[0]}?" if near else f"; {where} lists them"
    raise UsageError(f"unknown option {word.partition('=')[0]!r}{of}{hint}")


def _value(option: Option, word: str, attached: str | None, rest: list[str]) -> Value:
    if option.kind is Kind.FLAG:
        if attached is None or attached.lower() in _TRUE:
            return True
        if attached.lower() in _FALSE:
            return False
        raise UsageError(f"--{option.name} takes true or false, not {attached!r}")
    if attached is None:
        if not rest:
            raise UsageError(f"{word} needs a value: --{option.name} {option.metavar}")
        attached = rest.pop(0)
    if option.kind is Kind.NUMBER:
        if not attached.isascii() or not attached.isdigit():
            raise UsageError(f"--{option.name} takes a number, not {attached!r}")
        return int(attached)
    if option.kind is Kind.CHOICE and attached not in option.choices:
        allowed = ", ".join(option.choices)
        raise UsageError(f"--{option.name} takes one of {allowed}, not {attached!r}")
    return attached


def _arguments(command: Command, words: list[str], *, strict: bool) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for position, positional in enumerate(command.positionals):
        if position < len(words):
            arguments[positional.name] = words[position]
        elif positional.required and strict:
            raise UsageError(f"`ocirt {command.name}` needs {positional.name} ({positional.help})")
    extra = words[len(command.positionals) :]
    if extra and strict:
        raise UsageError(f"`ocirt {command.name}` doesn't know what to do with {extra[0]!r}")
    return arguments
