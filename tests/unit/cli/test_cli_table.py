# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of commands is consistent, so that what is made from it is, too."""

from __future__ import annotations

import re

import pytest

from ocirt.cli.commands import HANDLERS
from ocirt.cli.table import BY_NAME, COMMANDS, GLOBALS, Command, Kind, Option

OPTIONS = [
    *(pytest.param(o, id=f"ocirt --{o.name}") for o in GLOBALS),
    *(pytest.param(o, id=f"{c.name} --{o.name}") for c in COMMANDS for o in c.options),
]


def test_every_command_has_a_handler_and_every_handler_a_command() -> None:
    assert set(HANDLERS) == set(BY_NAME)
    assert len(BY_NAME) == len(COMMANDS)


def test_groups_are_not_torn_apart() -> None:
    groups = [c.group for c in COMMANDS]
    assert groups == sorted(groups, key=groups.index)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_well_formed(option: Option) -> None:
    assert re.fullmatch("[a-z]+(-[a-z]+)*", option.name)
    assert len(option.short) <= 1
    assert option.help and not option.help.endswith(".")
    assert bool(option.metavar) == (option.kind is not Kind.FLAG)
    assert bool(option.choices) == (option.kind is Kind.CHOICE)
    assert not option.choices or option.default in option.choices


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_names_within_a_command_are_unique(command: Command) -> None:
    names = [o.name for o in command.options]
    shorts = [o.short for o in command.options if o.short]
    assert len(set(names)) == len(names)
    assert len(set(shorts)) == len(shorts)
    # A global option must mean the same everywhere.
    assert not set(names) & ({o.name for o in GLOBALS} - {"rootless"})
    assert not set(shorts) & {o.short for o in GLOBALS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_optional_arguments_come_last_and_only_the_last_takes_the_rest(command: Command) -> None:
    required = [p.required for p in command.positionals]
    assert required == sorted(required, reverse=True)
    assert not any(p.rest for p in command.positionals[:-1])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_examples_are_of_the_command(command: Command) -> None:
    for line, meaning in command.examples:
        assert line.startswith(f"ocirt {command.name}")
        assert meaning
