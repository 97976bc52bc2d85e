# SPDX-License-Identifier: GPL-3.0-or-later
"""Manual pages, from the table: ocirt(1), and one for each command.

    python -m ocirt.cli.man DIR

writes them into DIR (PREFIX/share/man/man1). They are dated by SOURCE_DATE_EPOCH, or today.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ocirt import __version__
from ocirt.cli.help import meaning
from ocirt.cli.table import (
    ABOUT,
    COMMANDS,
    ENVIRONMENT,
    EXIT_STATUS,
    FILES,
    GLOBALS,
    Command,
    Option,
    Positional,
)

_SECTION = 1
# The characters that roff would read as something else, or typeset as other than ASCII.
_ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
_WIDTH = 78
_DASH = "\\-"

_SPELLING = (
    "These stand before the command or among its own options. An option's value is the next word,"
    " or follows an equals sign; one dash does for two. Of an option that is given more than once"
    " the last value counts, unless it can be repeated."
)


def overview(date: datetime.date) -> str:
    """Return ocirt(1)."""
    lines = [_title("ocirt", date), ".SH NAME", f"ocirt {_DASH} {_roff('run OCI containers')}"]
    lines += [".SH SYNOPSIS", ".B ocirt", "[\\fIglobal options\\fR]"]
    lines += ["\\fICOMMAND\\fR", "[\\fIoptions\\fR]", "[\\fIarguments\\fR]"]
    lines += [".SH DESCRIPTION", *_prose(ABOUT), ".SH COMMANDS"]
    for group, commands in itertools.groupby(COMMANDS, lambda command: command.group):
        lines.append(f".SS {_roff(group)}")
        for command in commands:
            lines += _term(f"\\fB{_roff(_page(command))}\\fR({_SECTION})", command.summary)
    lines += [".SH OPTIONS", *_prose(_SPELLING), *_options(GLOBALS)]
    for heading, entries in (
        ("EXIT STATUS", EXIT_STATUS),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
    ):
        lines.append(f".SH {heading}")
        for name, text in entries:
            lines += _term(f"\\fB{_roff(name)}\\fR", text)
    lines += _see_also([_page(command) for command in COMMANDS])
    return _text(lines)


def of_command(command: Command, date: datetime.date) -> str:
    """Return a command's page."""
    name = _page(command)
    summary = command.summary.replace("`", "")
    lines = [_title(name, date), ".SH NAME", f"{_roff(name)} {_DASH} {_roff(summary)}"]
    lines += [".SH SYNOPSIS", f".B ocirt {_roff(command.name)}"]
    lines += ["[\\fIoptions\\fR]"] if _shown(command.options) else []
    lines += [_shape(positional) for positional in command.positionals]
    lines += [".SH DESCRIPTION", *_prose(command.description or f"{command.summary}.")]
    if command.positionals:
        lines.append(".SH ARGUMENTS")
        for positional in command.positionals:
            lines += _term(f"\\fI{_roff(positional.name)}\\fR", positional.help)
    if _shown(command.options):
        lines += [".SH OPTIONS", *_options(command.options)]
    if command.examples:
        lines.append(".SH EXAMPLES")
        for line, text in command.examples:
            lines += _term(f"\\fB{_roff(line)}\\fR", text)
    lines += _see_also(["ocirt", *(_page(c) for c in COMMANDS if _related(c, command))])
    return _text(lines)


def _title(name: str, date: datetime.date) -> str:
    return f'.TH {_roff(name.upper())} {_SECTION} {date} "ocirt {__version__}" "User Commands"'


def _page(command: Command) -> str:
    return f"ocirt-{command.name}"


def _related(one: Command, other: Command) -> bool:
    return one.group == other.group and one != other


def _shown(options: Iterable[Option]) -> list[Option]:
    return [option for option in options if not option.hidden]


def _shape(positional: Positional) -> str:
    name = f"\\fI{_roff(positional.name)}\\fR" + ("..." if positional.rest else "")
    return name if positional.required else f"[{name}]"


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in _shown(options):
        names = [f"-{option.short}"] if option.short else []
        names.append(f"--{option.name}")
        head = ", ".join(f"\\fB{_roff(name)}\\fR" for name in names)
        if option.metavar:
            head += f" \\fI{_roff(option.metavar)}\\fR"
        yield from _term(head, meaning(option))


def _term(head: str, text: str) -> list[str]:
    """Return a tagged paragraph: head is roff already, text becomes a sentence."""
    sentence = text[0].upper() + text[1:]
    return [".TP", head, *_prose(sentence if sentence.endswith(".") else f"{sentence}.")]


def _see_also(pages: Iterable[str]) -> list[str]:
    # A page per line: a paragraph that is filled.
    entries = [f"\\fB{_roff(page)}\\fR({_SECTION})" for page in pages]
    return [".SH SEE ALSO", *(f"{entry}," for entry in entries[:-1]), entries[-1]]


def _prose(text: str) -> Iterator[str]:
    """Yield a paragraph's lines; what is between backticks is bold, and stays on one line."""
    text = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
        parts = line.replace("\0", " ").split("`")
        words = (f"\\fB{_roff(p)}\\fR" if n % 2 else _roff(p) for n, p in enumerate(parts))
        yield "".join(words)


def _roff(text: str) -> str:
    """Escape text: nothing in it is a request or an escape, and what is ASCII stays so."""
    escaped = "".join(_ESCAPES.get(character, character) for character in text)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def pages(date: datetime.date) -> dict[str, str]:
    """Return all pages by their files' names."""
    return {
        f"ocirt.{_SECTION}": overview(date),
        **{f"{_page(c)}.{_SECTION}": of_command(c, date) for c in COMMANDS},
    }


def write(directory: Path) -> None:
    """Write all pages into a directory."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    date = datetime.datetime.fromtimestamp(epoch, datetime.UTC).date()
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages(date).items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
