# SPDX-License-Identifier: GPL-3.0-or-later
"""Help texts, from the table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ocirt.cli.table import COMMANDS, GLOBALS, Command, Kind, Option

_WIDTH = 88
_COLUMN = 28


def overview() -> str:
    """Return what `ocirt --help` prints."""
    lines = [
        "ocirt: an OCI container runtime",
        "",
        "Usage: ocirt [global options] COMMAND [options] [arguments]",
    ]
    group = ""
    for command in COMMANDS:
        if command.group != group:
            group = command.group
            lines += ["", f"{group}:"]
        lines.append(f"  {command.name:<12}{command.summary}")
    lines += ["", "Global options:", *_options(GLOBALS)]
    lines += ["", "`ocirt COMMAND --help` explains a command."]
    return "\n".join(lines) + "\n"


def of_command(command: Command) -> str:
    """Return what `ocirt COMMAND --help` prints."""
    usage = ["ocirt", command.name]
    if command.options:
        usage.append("[options]")
    usage += [p.name if p.required else f"[{p.name}]" for p in command.positionals]
    lines = [f"{command.summary}.", "", f"Usage: {' '.join(usage)}"]
    if command.description:
        lines += ["", *textwrap.wrap(command.description, _WIDTH)]
    if command.positionals:
        lines += ["", "Arguments:"]
        lines += [f"  {p.name:<{_COLUMN - 2}}{p.help}" for p in command.positionals]
    if command.options:
        lines += ["", "Options:", *_options(command.options)]
    if command.examples:
        lines += ["", "Examples:"]
        for line, meaning in command.examples:
            lines += [f"  {line}", f"      {meaning}"]
    lines += ["", "`ocirt --help` lists the global options."]
    return "\n".join(lines) + "\n"


def _options(options: Sequence[Option]) -> list[str]:
    lines: list[str] = []
    for option in options:
        if option.hidden or option.ignored:
            continue
        names = f"-{option.short}, " if option.short else "    "
        names += f"--{option.name}"
        if option.kind is not Kind.FLAG:
            names += f" {option.metavar}"
        text = option.help
        if option.choices:
            text += f": {', '.join(option.choices)}"
        if option.kind is not Kind.FLAG and option.default not in (None, 0):
            text += f" (default {option.default})"
        wrapped = textwrap.wrap(text, _WIDTH - _COLUMN)
        head = f"  {names}"
        if len(head) >= _COLUMN:
            lines.append(head)
            head = ""
        lines.append(f"{head:<{_COLUMN}}{wrapped[0]}")
        lines += [" " * _COLUMN + line for line in wrapped[1:]]
    return lines
