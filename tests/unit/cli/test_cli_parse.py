# SPDX-License-Identifier: GPL-3.0-or-later
"""The parser takes what people and engines write, and explains what it doesn't take."""

from __future__ import annotations

import shlex

import pytest

from ocirt.cli.parse import Invocation, Values, parse
from ocirt.cli.table import GLOBALS, Command, Kind, Option, Positional
from ocirt.errors import UsageError


def parsed(line: str) -> Invocation:
    return parse(shlex.split(line), Values(GLOBALS))


def refused(line: str) -> str:
    with pytest.raises(UsageError) as caught:
        parsed(line)
    return str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "create --bundle B web1",
        "create --bundle=B web1",
        "create -bundle B web1",
        "create -bundle=B web1",
        "create -b B web1",
        "create -b=B web1",
        "create web1 --bundle B",
        "create web1 -b=B",
        "create --bundle A --bundle B web1",
        "create --bundle B -- web1",
    ],
)
def test_every_spelling_of_an_option_with_a_value(line: str) -> None:
    invocation = parsed(line)
    assert invocation.command is not None and invocation.command.name == "create"
    assert invocation.options.text("bundle") == "B"
    assert invocation.arguments == {"ID": "web1"}


@pytest.mark.parametrize(
    ("line", "keep"),
    [
        ("run c", False),
        ("run --keep c", True),
        ("run -keep c", True),
        ("run --keep=true c", True),
        ("run --keep=1 c", True),
        ("run --keep=FALSE c", False),
        ("run --keep --keep=false c", False),
        ("run --keep --keep c", True),
    ],
)
def test_flags(line: str, keep: bool) -> None:
    assert parsed(line).options.flag("keep") is keep


@pytest.mark.parametrize(
    "line",
    [
        "--root R --log-format json state c",
        "state --root R --log-format=json c",
        "--root X state c --log-format json --root R",
    ],
)
def test_global_options_go_before_and_after_the_command(line: str) -> None:
    invocation = parsed(line)
    assert invocation.globals.text("root") == "R"
    assert invocation.globals.text("log-format") == "json"
    assert invocation.arguments == {"ID": "c"}


def test_a_commands_own_option_goes_before_a_global_one_of_its_name() -> None:
    invocation = parsed("--rootless false spec --rootless")
    assert invocation.globals.text("rootless") == "false"
    assert invocation.options.flag("rootless")


def test_defaults() -> None:
    invocation = parsed("create c")
    assert invocation.options.text("bundle") == "."
    assert invocation.options.text("config") == "config.json"
    assert invocation.options.maybe("pid-file") is None
    assert invocation.options.number("preserve-fds") == 0
    assert invocation.globals.maybe("log") is None
    assert invocation.globals.text("rootless") == "auto"


# As engines write them.
@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        (
            "--log-format=json --log /r/oci-log create --bundle /b --pid-file /r/pid web1",
            {"ID": "web1"},
        ),
        (
            "--root /r --log /l --log-format json kill --all web1 9",
            {"ID": "web1", "SIGNAL": "9"},
        ),
        ("--root /r --log /l --log-format json delete --force web1", {"ID": "web1"}),
        ("run --detach -no-subreaper --bundle /b web1", {"ID": "web1"}),
    ],
)
def test_engines_command_lines(line: str, arguments: dict[str, str]) -> None:
    assert parsed(line).arguments == arguments


def test_a_value_may_look_like_an_option() -> None:
    assert parsed("create --pid-file --keep c").options.text("pid-file") == "--keep"


def test_after_two_dashes_nothing_is_an_option() -> None:
    assert parsed("state -- --help").arguments == {"ID": "--help"}


def test_help_is_given_whatever_else_is_missing() -> None:
    invocation = parsed("create --help")
    assert invocation.globals.flag("help")
    assert invocation.command is not None and invocation.command.name == "create"


def test_no_command() -> None:
    assert parsed("").command is None
    assert parsed("--version").globals.flag("version")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("creat c", "unknown command 'creat'; did you mean create?"),
        ("frobnicate", "unknown command 'frobnicate'; `ocirt help` lists them"),
        (
            "create --bundel B c",
            "unknown option '--bundel' of `ocirt create`; did you mean --bundle?",
        ),
        ("create --bundel=B c", "unknown option '--bundel' of"),
        ("start --bundle B c", "unknown option '--bundle' of `ocirt start`"),
        ("kill -x c", "unknown option '-x' of `ocirt kill`; `ocirt kill --help` lists them"),
        ("--rot X list", "unknown option '--rot'; did you mean --root?"),
        # A short name takes one dash, and no option three.
        ("create --b B c", "unknown option '--b'"),
        ("create ---bundle B c", "unknown option '---bundle'"),
        ("create c --bundle", "--bundle needs a value: --bundle DIR"),
        ("create c -b", "-b needs a value: --bundle DIR"),
        ("run --keep=maybe c", "--keep takes true or false, not 'maybe'"),
        ("create --preserve-fds two c", "--preserve-fds takes a number, not 'two'"),
        ("create --preserve-fds -1 c", "--preserve-fds takes a number, not '-1'"),
        ("create --preserve-fds ² c", "--preserve-fds takes a number"),
        (f"create --preserve-fds {'9' * 5000} c", "--preserve-fds takes a number"),
        ("list --format yaml", "--format takes one of table, json, not 'yaml'"),
        ("create", "`ocirt create` needs ID"),
        ("state a b", "`ocirt state` doesn't take another argument, 'b'"),
    ],
)
def test_a_mistake_is_explained_in_one_sentence(line: str, said: str) -> None:
    message = refused(line)
    assert said in message
    assert "\n" not in message


def test_global_options_are_known_even_if_the_rest_is_wrong() -> None:
    given = Values(GLOBALS)
    with pytest.raises(UsageError):
        parse(["--log", "L", "--log-format=json", "create", "--bundel"], given)
    assert given.text("log") == "L"
    assert given.text("log-format") == "json"


EXEC = Command(
    "exec",
    "",
    "",
    positionals=(
        Positional("ID", ""),
        Positional("COMMAND", "", required=False, rest=True),
    ),
    options=(
        Option("env", "", short="e", metavar="NAME=VALUE", repeatable=True),
        Option("tty", "", Kind.FLAG, "t"),
    ),
)


@pytest.mark.parametrize(
    ("line", "tty", "rest"),
    [
        ("exec c ls -t --tty", False, ("ls", "-t", "--tty")),
        ("exec -t c ls -- -t", True, ("ls", "--", "-t")),
        ("exec --tty c -- ls -t", True, ("ls", "-t")),
        ("exec c", False, ()),
    ],
)
def test_an_argument_that_takes_the_rest_takes_its_options_too(
    line: str, tty: bool, rest: tuple[str, ...]
) -> None:
    invocation = parse(shlex.split(line), Values(GLOBALS), {"exec": EXEC})
    assert invocation.options.flag("tty") is tty
    assert invocation.arguments == {"ID": "c"}
    assert invocation.rest == rest


def test_a_repeatable_option_keeps_all_values() -> None:
    invocation = parse(shlex.split("exec -e A=1 --env=B=2 c"), Values(GLOBALS), {"exec": EXEC})
    assert invocation.options.all("env") == ("A=1", "B=2")
