# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command and option, as data: parsing, help and all that describes them come from here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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

    metavar names the value in help. Given more than once the last value counts, or all of them if
    repeatable. Hidden options don't show in help: they are there for the sake of engines.
    """

    name: str
    help: str
    kind: Kind = Kind.TEXT
    short: str = ""
    metavar: str = ""
    default: str | int | None = None
    choices: tuple[str, ...] = ()
    repeatable: bool = False
    hidden: bool = False
    # The value where it isn't given.
    initial: str | int | bool | tuple[str, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        flag = self.kind is Kind.FLAG
        initial = False if flag else () if self.repeatable else self.default
        object.__setattr__(self, "initial", initial)


@dataclass(frozen=True, slots=True)
class Positional:
    """One argument without a dash; rest takes all that follow, options or not.

    new says that the argument names what doesn't exist yet.
    """

    name: str
    help: str
    required: bool = True
    rest: bool = False
    new: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One command. group is its heading in the overview; an example is a line and its meaning."""

    name: str
    group: str
    summary: str
    description: str = ""
    positionals: tuple[Positional, ...] = ()
    options: tuple[Option, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()


def _flag(name: str, help_: str, short: str = "") -> Option:
    return Option(name, help_, Kind.FLAG, short)


def _choice(
    name: str, help_: str, metavar: str, choices: tuple[str, ...], default: str, short: str = ""
) -> Option:
    return Option(name, help_, Kind.CHOICE, short, metavar, default, choices)


ABOUT = "ocirt runs OCI containers: it makes one from a bundle, and takes it down again."

# For the manual page: names and what they mean.
EXIT_STATUS: tuple[tuple[str, str], ...] = (
    ("0", "success"),
    ("1", "the command failed; one sentence on stderr says why"),
    ("255", "`exec` couldn't run the program"),
    ("others", "that of the program that `run` or `exec` waited for, 128 + n if signal n ended it"),
)
ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("XDG_RUNTIME_DIR", "without root, and in a user namespace, states are kept in ocirt below it"),
    ("OCIRT_DELETE_CREATED", "set to 1, `delete` removes a container that waits for start"),
    (
        "NOTIFY_SOCKET",
        "a service manager's (sd_notify): the container's program can say it is ready",
    ),
    ("LISTEN_FDS", "so many descriptors from 3 on go to the container's program (sd_listen_fds)"),
)
FILES: tuple[tuple[str, str], ...] = (
    ("/run/ocirt", "a directory for each container: its state, as --root has it"),
    ("config.json", "in the bundle: what the container is, as the OCI runtime specification says"),
)

GLOBALS: tuple[Option, ...] = (
    Option(
        "root",
        "where states are kept (default /run/ocirt, without root $XDG_RUNTIME_DIR/ocirt)",
        metavar="DIR",
    ),
    Option(
        "log",
        "append messages to this file (file:FILE), or send them to the machine's log"
        " (journald:NAME, syslog:NAME); errors go to stderr too",
        metavar="FILE",
    ),
    _choice("log-format", "the form of that file", "FORMAT", ("text", "json"), "text"),
    _choice(
        "log-level",
        "the least severe messages to write",
        "LEVEL",
        ("debug", "info", "warning", "error"),
        "warning",
    ),
    _flag("debug", "--log-level debug, with tracebacks of errors"),
    _flag("systemd-cgroup", "let systemd manage cgroups (not supported yet)"),
    Option(
        "cgroup-manager",
        "who manages cgroups",
        Kind.CHOICE,
        metavar="MANAGER",
        default="cgroupfs",
        choices=("cgroupfs", "systemd", "disabled"),
        hidden=True,  # crun's spelling
    ),
    _choice(
        "rootless",
        "do without what needs root",
        "WHEN",
        ("true", "false", "auto"),
        "auto",
    ),
    _flag("help", "show help and exit", "h"),
    _flag("version", "show the version and exit", "v"),
)

_ID = Positional("ID", "the container's name")
_NEW_ID = Positional("ID", "a name for the container: letters, digits and _ + - .", new=True)

_BUNDLE = Option(
    "bundle",
    "directory with config.json and, usually, the rootfs",
    short="b",
    metavar="DIR",
    default=".",
)
_CONFIG = Option(
    "config",
    "configuration, relative to the bundle",
    short="f",
    metavar="FILE",
    default="config.json",
)
_FORMAT = _choice("format", "the form of the report", "FORMAT", ("text", "json"), "text")

_CONSOLE_SOCKET = Option(
    "console-socket", "unix socket that gets the terminal's master", metavar="SOCKET"
)
_PIDFD_SOCKET = Option(
    "pidfd-socket", "unix socket that gets the process's pidfd", metavar="SOCKET"
)
_PRESERVE_FDS = Option(
    "preserve-fds",
    "hand this many descriptors down, from 3 on",
    Kind.NUMBER,
    metavar="N",
    default=0,
)

_CREATE = (
    _BUNDLE,
    _CONFIG,
    Option("pid-file", "write the pid of the first process here", metavar="FILE"),
    _CONSOLE_SOCKET,
    _PIDFD_SOCKET,
    _PRESERVE_FDS,
    _flag("no-pivot", "use chroot instead of pivot_root (host on a ramdisk)"),
    _flag("no-new-keyring", "keep the caller's session keyring"),
    Option("trace", "write the steps' times here (Chrome trace format)", metavar="FILE"),
)

# They change nothing in the plan, which takes them so that create's command line can be tried.
_NOT_PLANNED = ("pid-file", "trace")


def _of_plan(option: Option) -> Option:
    return replace(option, hidden=True) if option.name in _NOT_PLANNED else option


_LIFE = "A container's life"
_LOOK = "What there is"
_BEFORE = "Before there is a container"
_ABOUT = "About ocirt"

COMMANDS: tuple[Command, ...] = (
    Command(
        "create",
        _LIFE,
        "Make a container that waits for `ocirt start`",
        "Makes everything config.json asks for, up to the point where its program would run. If it"
        " fails, nothing is left behind.",
        (_NEW_ID,),
        _CREATE,
        (("ocirt create --bundle /srv/web web1", "make web1 from the bundle in /srv/web"),),
    ),
    Command(
        "start",
        _LIFE,
        "Run the program of a created container",
        "Returns as soon as the program runs, or says why it can't.",
        (_ID,),
        examples=(("ocirt start web1", "run the program that waits in web1"),),
    ),
    Command(
        "run",
        _LIFE,
        "Create and start; wait for the end, and delete",
        "In the foreground, signals are passed on to the container, and the exit status is its"
        " program's, or 128 + n if signal n ended it.",
        (_NEW_ID,),
        (
            *_CREATE,
            _flag("detach", "return as soon as the program runs", "d"),
            _flag("keep", "leave the stopped container for `ocirt delete`"),
            _flag("no-subreaper", "don't adopt processes that outlive the container"),
        ),
        (
            ("ocirt run -b /srv/web web1", "run in the foreground"),
            ("ocirt run -d -b /srv/web web1", "run in the background, until `ocirt delete`"),
        ),
    ),
    Command(
        "exec",
        _LIFE,
        "Run another program in a running container",
        "The program gets the container's namespaces, cgroup, user, capabilities and limits. The"
        " exit status is the program's, 128 + n if signal n ended it, and 255 if it couldn't be"
        " run.",
        (_ID, Positional("ARGS", "the program and its arguments", required=False, rest=True)),
        (
            Option("process", "describe the process, as in config.json", short="p", metavar="FILE"),
            Option("cwd", "working directory", metavar="DIR"),
            Option(
                "env", "add to the environment", short="e", metavar="NAME=VALUE", repeatable=True
            ),
            Option("user", "user, and group", short="u", metavar="UID[:GID]"),
            Option("additional-gids", "add a group", short="g", metavar="GID", repeatable=True),
            Option("cap", "add a capability", short="c", metavar="CAP", repeatable=True),
            _flag("no-new-privs", "set no_new_privs"),
            Option("apparmor", "AppArmor profile", metavar="PROFILE"),
            Option("process-label", "SELinux label", metavar="LABEL"),
            _flag("tty", "give it a terminal", "t"),
            _CONSOLE_SOCKET,
            _flag("detach", "return as soon as the program runs", "d"),
            Option("pid-file", "write the program's pid here", metavar="FILE"),
            _PIDFD_SOCKET,
            _PRESERVE_FDS,
            Option(
                "cgroup",
                "go to a cgroup below the container's",
                metavar="[CONTROLLER,...:]PATH",
                repeatable=True,
            ),
            _flag("ignore-paused", "run it when the paused container goes on"),
        ),
        (
            ("ocirt exec web1 ps", "list the processes of web1"),
            ("ocirt exec -t web1 sh", "work in web1 with a shell"),
        ),
    ),
    Command(
        "kill",
        _LIFE,
        "Send a signal to a container's first process",
        "A signal is a name in any case, with or without SIG, or a number.",
        (_ID, Positional("SIGNAL", "which one (default SIGTERM)", required=False)),
        (_flag("all", "send it to every process of the container", "a"),),
        (
            ("ocirt kill web1", "ask web1 to end"),
            ("ocirt kill --all web1 KILL", "end all of web1's processes"),
        ),
    ),
    Command(
        "delete",
        _LIFE,
        "Remove a stopped container and all that was made for it",
        "A container that waits for start isn't stopped: kill it first or use --force, or set"
        " OCIRT_DELETE_CREATED=1 to have it deleted as other runtimes do.",
        (_ID,),
        (_flag("force", "kill it first; one that doesn't exist is no error", "f"),),
        (("ocirt delete --force web1", "remove web1, whatever it is doing"),),
    ),
    Command(
        "state",
        _LOOK,
        "Print a container's state as JSON",
        "The status is creating, created, running or stopped.",
        (_ID,),
        examples=(("ocirt state web1", "print web1's status, pid and bundle, among others"),),
    ),
    Command(
        "list",
        _LOOK,
        "List the containers",
        "Lists those of one --root. As JSON it is an array of states, [] if there are none.",
        options=(
            _choice("format", "the form of the list", "FORMAT", ("table", "json"), "table", "f"),
            _flag("quiet", "print nothing but the ids", "q"),
        ),
        examples=(("ocirt list", "list all containers as a table"),),
    ),
    Command(
        "spec",
        _BEFORE,
        "Write a config.json to start from",
        "Writes it into the bundle's directory; a config.json that is there stays as it is.",
        options=(_BUNDLE, _flag("rootless", "for a container that is made without root")),
        examples=(("ocirt spec -b /srv/web", "write /srv/web/config.json"),),
    ),
    Command(
        "validate",
        _BEFORE,
        "Check a config.json and report all that is wrong with it",
        "The exit status is 1 if there is an error, and 0 if there are warnings at most.",
        options=(_BUNDLE, _CONFIG, _FORMAT),
        examples=(("ocirt validate -b /srv/web", "check /srv/web/config.json"),),
    ),
    Command(
        "plan",
        _BEFORE,
        "Print the steps that create and start would take; take none",
        "Each step has the process that takes it, its place in config.json in brackets, and how a"
        " failure later on takes it back. create's other options are taken and change nothing.",
        (Positional("ID", "the name to plan for", required=False, new=True),),
        (*(_of_plan(option) for option in _CREATE), _FORMAT),
        (("ocirt plan -b /srv/web", "print how the bundle in /srv/web becomes a container"),),
    ),
    Command(
        "features",
        _ABOUT,
        "Print what this runtime can do, as JSON",
        "The document is the specification's, as in features.md.",
        examples=(("ocirt features", "print the namespaces, capabilities, mount options, ..."),),
    ),
    Command("version", _ABOUT, "Print the version"),
    Command(
        "help",
        _ABOUT,
        "Explain a command",
        positionals=(Positional("COMMAND", "the command", required=False),),
        examples=(("ocirt help run", "the same as `ocirt run --help`"),),
    ),
)

BY_NAME: dict[str, Command] = {command.name: command for command in COMMANDS}
