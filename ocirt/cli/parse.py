# SPDX-License-Identifier: GPL-3.0-or-later
"""argv to values, by the table.

Accepts what people and engines write: --name value, --name=value, -n value, -n=value, and long
options with a single dash, as Go programs take them. Options stand anywhere; -- ends them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ocirt.cli.table import BY_NAME, GLOBALS, Command, Kind, Option
from ocirt.errors import UsageError

Value = str | int | bool | tuple[str, ...] | None

# More digits are a mistake, and Python refuses to convert thousands of them.
_NUMBER = re.compile("[0-9]{1,18}")

_TRUE = ("true", "t", "1")
_FALSE = ("false", "f", "0")


class Values(dict[str, Value]):
    """Options' values by their names, each in the type its kind has."""

    def __init__(self, options: Iterable[Option]) -> None:
        """Begin with the defaults."""
        super().__init__([(option.name, option.initial) for option in options])

    def text(self, name: str) -> str:
        """Return the value of an option that has a default."""
        return str(self[name])

    def maybe(self, name: str) -> str | None:
        """Return the value of an option that has none: None unless it was given."""
        value = self[name]
        return None if value is None else str(value)

    def number(self, name: str) -> int:
        """Return a number; 0 if the command has no such option."""
        value = self.get(name, 0)
        return value if isinstance(value, int) else 0

    def flag(self, name: str) -> bool:
        """Whether a flag was given."""
        return self[name] is True

    def all(self, name: str) -> tuple[str, ...]:
        """Return the values of a repeatable option, in their order."""
        value = self[name]
        return value if isinstance(value, tuple) else ()


@dataclass(frozen=True, slots=True)
class Invocation:
    """A parsed command line; command is None if there was none.

    arguments are the positionals that were given, by name; rest is what an argument that takes all
    that follow got.
    """

    command: Command | None
    options: Values
    globals: Values
    arguments: Mapping[str, str]
    rest: tuple[str, ...] = ()


def parse(
    argv: Sequence[str], global_values: Values, commands: Mapping[str, Command] = BY_NAME
) -> Invocation:
    """Parse a command line without the program's name. Raises UsageError.

    global_values gets the global options as they are met, so that --log is known even if what
    follows it is wrong.
    """
    options = Values(())
    words: list[str] = []
    command: Command | None = None
    todo = list(argv)
    while todo:
        if command is not None and _takes_the_rest(command, len(words)):
            words += todo[1:] if todo[0] == "--" else todo
            break
        word = todo.pop(0)
        if word == "--":
            words += todo
            break
        if word.startswith("-") and word != "-":
            option, attached = _find_option(word, command)
            # A command's own option goes before a global one of the same name.
            target = options if command and option in command.options else global_values
            _set(target, option, _value(option, word, attached, todo))
        elif command is None:
            command = find_command(word, commands)
            options = Values(command.options)
        else:
            words.append(word)
    if command is None or global_values["help"]:
        return Invocation(command, options, global_values, {})
    arguments, rest = _arguments(command, words)
    return Invocation(command, options, global_values, arguments, rest)


def find_command(word: str, commands: Mapping[str, Command] = BY_NAME) -> Command:
    """Return a command by its name. Raises UsageError with the name that may have been meant."""
    if word in commands:
        return commands[word]
    near = difflib.get_close_matches(word, commands, 1)
    hint = f"did you mean {near[0]}?" if near else "`ocirt help` lists them"
    raise UsageError(f"unknown command {word!r}; {hint}")


def _takes_the_rest(command: Command, words: int) -> bool:
    """Whether the next word, and all after it, belong to an argument that takes the rest."""
    return words < len(command.positionals) and command.positionals[words].rest


def _find_option(word: str, command: Command | None) -> tuple[Option, str | None]:
    """Return the option that a word is for, and the value after its equals sign."""
    written, equals, attached = word.partition("=")
    long = written.startswith("--")
    name = written[2:] if long else written[1:]
    options = (*(command.options if command else ()), *GLOBALS)
    for option in options:
        if name == option.name or (name == option.short and not long):
            return option, attached if equals else None
    near = difflib.get_close_matches(name, [o.name for o in options if not o.hidden], 1)
    of = f" {command.name}" if command else ""
    hint = f"did you mean --{near[0]}?" if near else f"`ocirt{of} --help` lists them"
    raise UsageError(f"unknown option {written!r}{of and f' of `ocirt{of}`'}; {hint}")


def _set(values: Values, option: Option, value: Value) -> None:
    if option.repeatable:
        value = (*values.all(option.name), str(value))
    values[option.name] = value


def _value(option: Option, word: str, attached: str | None, todo: list[str]) -> Value:
    if option.kind is Kind.FLAG:
        if attached is None or attached.lower() in _TRUE:
            return True
        if attached.lower() in _FALSE:
            return False
        raise UsageError(f"--{option.name} takes true or false, not {attached!r}")
    if attached is None:
        if not todo:
            raise UsageError(f"{word} needs a value: --{option.name} {option.metavar}")
        attached = todo.pop(0)
    if option.kind is Kind.NUMBER:
        if not _NUMBER.fullmatch(attached):
            raise UsageError(f"--{option.name} takes a number, not {attached!r}")
        return int(attached)
    if option.kind is Kind.CHOICE and attached not in option.choices:
        allowed = ", ".join(option.choices)
        raise UsageError(f"--{option.name} takes one of {allowed}, not {attached!r}")
    return attached


def _arguments(command: Command, words: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Give the words to the command's positionals. Raises UsageError for one more or less."""
    arguments: dict[str, str] = {}
    for position, positional in enumerate(command.positionals):
        if positional.rest and words[position:]:
            return arguments, tuple(words[position:])
        if position < len(words):
            arguments[positional.name] = words[position]
        elif positional.required:
            raise UsageError(
                f"`ocirt {command.name}` needs {positional.name} ({positional.help});"
                f" `ocirt {command.name} --help` explains it"
            )
    if extra := words[len(command.positionals) :]:
        raise UsageError(
            f"`ocirt {command.name}` doesn't take another argument, {extra[0]!r};"
            f" `ocirt {command.name} --help` lists what it takes"
        )
    return arguments, ()
