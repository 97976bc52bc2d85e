# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command and option, as data: parsing, help and all that describes them come from here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an option's value is."""

    FLAG = "flag"
    TEXT = "text"
    NUMBER = "number"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: --name, and -short if it has one.

    metavar names the value in help; ignored options are accepted for the sake of engines and do
    nothing; hidden ones don't show in help.
    """

    name: str
    help: str
    kind: Kind = Kind.TEXT
    short: str = ""
    metavar: str = "VALUE"
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()
    ignored: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Positional:
    """One argument without a dash; rest takes all that follow."""

    name: str
    help: str
    required: bool = True
    rest: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One command; group is the heading in the overview."""

    name: str
    group: str
    summary: str
    description: str = ""
    positionals: tuple[Positional, ...] = ()
    options: tuple[Option, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()


def _flag(name: str, help_: str, short: str = "") -> Option:
    return Option(name, help_, Kind.FLAG, short, default=False)


GLOBALS: tuple[Option, ...] = (
    Option(
        "root",
        "where containers' states are kept (default /run/ocirt, or $XDG_RUNTIME_DIR/ocirt without"
        " root)",
        metavar="DIR",
    ),
    Option("log", "append messages to this file; errors still go to stderr", metavar="FILE"),
    Option(
        "log-format",
        "how messages are written",
        Kind.CHOICE,
        default="text",
        metavar="FORMAT",
        choices=("text", "json"),
    ),
    Option(
        "log-level",
        "the least severe messages to write",
        Kind.CHOICE,
        default="warning",
        metavar="LEVEL",
        choices=("debug", "info", "warning", "error"),
    ),
    _flag("debug", "the same as --log-level debug; also shows tracebacks of bugs"),
    _flag("systemd-cgroup", "let systemd manage cgroups (not supported yet)"),
    Option(
        "cgroup-manager",
        "who manages cgroups",
        Kind.CHOICE,
        default="cgroupfs",
        metavar="MANAGER",
        choices=("cgroupfs", "systemd", "disabled"),
        hidden=True,
    ),
    Option(
        "rootless",
        "go without what needs root, such as cgroups that can't be written",
        Kind.CHOICE,
        default="auto",
        metavar="WHEN",
        choices=("true", "false", "auto"),
    ),
    _flag("help", "show help and exit", "h"),
    _flag("version", "show the version and exit", "v"),
)

_ID = Positional("ID", "the container's name: letters, digits and _+-.")

_BUNDLE = Option(
    "bundle",
    "directory with config.json and, usually, the rootfs",
    short="b",
    metavar="DIR",
    default=".",
)
_CONFIG = Option(
    "config",
    "configuration file, relative to the bundle",
    short="f",
    metavar="FILE",
    default="config.json",
)
_CREATE = (
    _BUNDLE,
    _CONFIG,
    Option("pid-file", "write the pid of the container's process here", metavar="FILE"),
    Option(
        "console-socket",
        "unix socket that gets the terminal (not supported yet)",
        metavar="SOCKET",
    ),
    Option(
        "preserve-fds",
        "pass this many descriptors after stderr to the container",
        Kind.NUMBER,
        default=0,
        metavar="N",
    ),
    _flag("no-pivot", "use chroot instead of pivot_root, for a host that runs from a ramdisk"),
    _flag("no-new-keyring", "keep the caller's session keyring"),
    Option("trace", "write when each step began and ended (Chrome trace format)", metavar="FILE"),
)

_LIFE = "The life of a container"
_LOOK = "Looking"
_BEFORE = "Before there is a container"

COMMANDS: tuple[Command, ...] = (
    Command(
        "create",
        _LIFE,
        "Create a container that waits for start",
        "Builds everything config.json asks for, up to the point where the program would run.",
        (_ID,),
        _CREATE,
        (("ocirt create -b /srv/web web1", "create web1 from the bundle in /srv/web"),),
    ),
    Command(
        "start",
        _LIFE,
        "Run the program of a created container",
        positionals=(_ID,),
    ),
    Command(
        "run",
        _LIFE,
        "Create and start; wait for the end and delete",
        "In the foreground signals are passed on, and the exit status is the program's, or 128 + n"
        " if signal n ended it.",
        (_ID,),
        (
            *_CREATE,
            _flag("detach", "return as soon as the program runs", "d"),
            _flag("keep", "leave the stopped container for `ocirt delete`"),
            _flag("no-subreaper", "don't adopt processes that the container leaves behind"),
        ),
        (("ocirt run -b /srv/web web1; echo $?", "run in the foreground, see the exit status"),),
    ),
    Command(
        "kill",
        _LIFE,
        "Send a signal to the container's process",
        positionals=(
            _ID,
            Positional("SIGNAL", "name or number (default SIGTERM)", required=False),
        ),
        options=(_flag("all", "send it to every process in the container", "a"),),
        examples=(("ocirt kill web1 KILL", "names work with and without SIG"),),
    ),
    Command(
        "delete",
        _LIFE,
        "Remove a stopped container and all that was made for it",
        "A container that was created but not started isn't stopped: kill it first, use --force,"
        " or set OCIRT_DELETE_CREATED=1 to have it deleted as other runtimes do.",
        (_ID,),
        (_flag("force", "kill it first; no error if there is no such container", "f"),),
    ),
    Command("state", _LOOK, "Print a container's state as JSON", positionals=(_ID,)),
    Command(
        "list",
        _LOOK,
        "List the containers",
        options=(
            Option(
                "format",
                "table or json",
                Kind.CHOICE,
                short="f",
                default="table",
                metavar="FORMAT",
                choices=("table", "json"),
            ),
            _flag("quiet", "print ids only", "q"),
        ),
    ),
    Command(
        "spec",
        _BEFORE,
        "Write a config.json to start from",
        options=(_BUNDLE, _flag("rootless", "for a container without root")),
    ),
    Command(
        "validate",
        _BEFORE,
        "Check a config.json and report everything that is wrong with it",
        "Exits with 1 if there is an error; warnings alone exit with 0.",
        options=(
            _BUNDLE,
            _CONFIG,
            Option(
                "format",
                "text or json",
                Kind.CHOICE,
                default="text",
                metavar="FORMAT",
                choices=("text", "json"),
            ),
        ),
    ),
    Command(
        "plan",
        _BEFORE,
        "Print the steps that create and start would take, without taking any",
        positionals=(Positional("ID", "a name to plan for", required=False),),
        options=(
            *_CREATE,
            Option(
                "format",
                "text or json",
                Kind.CHOICE,
                default="text",
                metavar="FORMAT",
                choices=("text", "json"),
            ),
        ),
    ),
    Command("features", _BEFORE, "Print what this runtime supports, as JSON"),
    Command("version", _BEFORE, "Print the version"),
    Command(
        "help",
        _BEFORE,
        "Explain a command",
        positionals=(Positional("COMMAND", "the command", required=False),),
    ),
)

BY_NAME: dict[str, Command] = {c.name: c for c in COMMANDS}
