# SPDX-License-Identifier: GPL-3.0-or-later
"""One function per command: values in, one call into the room that does it, output out."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from operator import itemgetter

from ocirt import __version__
from ocirt.cli import help as help_texts
from ocirt.cli.parse import Invocation, find_command
from ocirt.cli.signals import signal_number
from ocirt.cli.stdio import print_out
from ocirt.errors import OcirtError, UsageError
from ocirt.parts.mount_options import SUPPORTED
from ocirt.parts.seccomp import supported_flags
from ocirt.plain import LAUNCHER
from ocirt.runtime import plan, query
from ocirt.runtime.activation import listen_fds
from ocirt.runtime.create import CreateOptions, create
from ocirt.runtime.delete import delete
from ocirt.runtime.exec import NOT_RUN, exec_in
from ocirt.runtime.exec_options import ExecOptions
from ocirt.runtime.kill import kill
from ocirt.runtime.run import run
from ocirt.runtime.start import start
from ocirt.runtime.store import Store
from ocirt.spec.defaults import default_config
from ocirt.spec.features import VERSION_MAX, features
from ocirt.spec.names import CAPABILITIES
from ocirt.spec.validate import Kind, check_document, read_document

_LIST_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")
_columns = itemgetter(*_LIST_COLUMNS)
# runc's table: columns of 12 at least, 3 blanks between them.
_LIST_WIDTH = 12
_LIST_PADDING = 3

# The last but one of 32 bits: -1 means "leave it" to setresuid(2).
_LARGEST_ID = (1 << 32) - 2

_ROOTLESS = {"true": True, "false": False, "auto": None}


def _create(i: Invocation) -> int:
    create(_store(i), i.arguments["ID"], _create_options(i))
    return 0


def _start(i: Invocation) -> int:
    start(_store(i), i.arguments["ID"], os.environ.get("NOTIFY_SOCKET"))
    return 0


def _run(i: Invocation) -> int:
    return run(
        _store(i),
        i.arguments["ID"],
        _create_options(i),
        detach=i.options.flag("detach"),
        keep=i.options.flag("keep"),
        subreaper=not i.options.flag("no-subreaper"),
    )


def _exec(i: Invocation) -> int:
    try:
        options = _exec_options(i)
    except UsageError as e:
        e.exit_status = NOT_RUN
        raise
    return exec_in(_store(i), i.arguments["ID"], options)


def _exec_options(i: Invocation) -> ExecOptions:
    options = i.options
    if options.maybe("process") is None and not i.rest:
        raise UsageError("exec: which program? Give its arguments, or --process FILE")
    user = options.maybe("user")
    return ExecOptions(
        args=i.rest,
        process_file=options.maybe("process"),
        cwd=options.maybe("cwd"),
        env=options.all("env"),
        user=None if user is None else _user(user),
        additional_gids=tuple(_numeric_id(g, "group") for g in options.all("additional-gids")),
        capabilities=tuple(_capability(c) for c in options.all("cap")),
        no_new_privileges=options.flag("no-new-privs"),
        apparmor_profile=options.maybe("apparmor"),
        process_label=options.maybe("process-label"),
        tty=options.flag("tty"),
        console_socket=options.maybe("console-socket"),
        detach=options.flag("detach"),
        pid_file=options.maybe("pid-file"),
        pidfd_socket=options.maybe("pidfd-socket"),
        preserve_fds=options.number("preserve-fds"),
        cgroups=options.all("cgroup"),
        ignore_paused=options.flag("ignore-paused"),
    )


def _user(text: str) -> tuple[int, int | None]:
    uid, colon, gid = text.partition(":")
    return _numeric_id(uid, "user"), _numeric_id(gid, "group") if colon else None


def _numeric_id(text: str, kind: str) -> int:
    """Read an id strictly: a name that looks like one must not become root (CVE-2026-30892)."""
    if re.fullmatch("[0-9]{1,10}", text) and int(text) <= _LARGEST_ID:
        return int(text)
    raise UsageError(f"{text!r} is no {kind} id: give a number from 0 to {_LARGEST_ID}")


def _capability(name: str) -> str:
    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full not in CAPABILITIES:
        raise UsageError(f"unknown capability {name!r}")
    return full


def _kill(i: Invocation) -> int:
    number = signal_number(i.arguments.get("SIGNAL", "TERM"))
    kill(_store(i), i.arguments["ID"], number, everything=i.options.flag("all"))
    return 0


def _delete(i: Invocation) -> int:
    delete(_store(i), i.arguments["ID"], force=i.options.flag("force"))
    return 0


def _state(i: Invocation) -> int:
    print_out(indented(query.state(_store(i), i.arguments["ID"])) + "\n")
    return 0


def _list(i: Invocation) -> int:
    store = _store(i)
    if i.options.flag("quiet"):
        print_out("".join(f"{container_id}\n" for container_id in store.ids()))
    elif i.options.text("format") == "json":
        _print_json(query.list_containers(store), indent=None)
    else:
        rows = [list(map(str, _columns(state))) for state in query.list_containers(store)]
        print_out(_table([[column.upper() for column in _LIST_COLUMNS], *rows]))
    return 0


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = (
        max(_LIST_WIDTH, max(map(len, column)) + _LIST_PADDING)
        for column in zip(*rows, strict=True)
    )
    line = "".join(f"{{:<{width}}}" for width in widths)
    return "".join([f"{line.format(*row).rstrip()}\n" for row in rows])


def _spec(i: Invocation) -> int:
    path = os.path.join(i.options.text("bundle"), "config.json")
    rootless = i.options.flag("rootless")
    document = default_config(rootless=rootless, uid=os.geteuid(), gid=os.getegid())
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json.dumps(document, indent="\t") + "\n")
    except FileExistsError:
        raise OcirtError(f"{path} exists and stays as it is; remove it first") from None
    return 0


def _validate(i: Invocation) -> int:
    path = os.path.join(i.options.text("bundle"), i.options.text("config"))
    hint = "--bundle names the directory, `ocirt spec` writes a config.json"
    report = check_document(read_document(path, hint), path, Kind.CONFIG)
    if i.options.text("format") == "json":
        _print_json(report.to_json())
    else:
        lines = [f"error: {finding}" for finding in report.errors]
        lines += [f"warning: {finding}" for finding in report.warnings]
        if not report.errors:
            lines.append(f"{path}: valid")
        print_out("".join(f"{line}\n" for line in lines))
    return 1 if report.errors else 0


def _plan(i: Invocation) -> int:
    rows = plan.describe(_store(i), i.arguments.get("ID"), _create_options(i))
    if i.options.text("format") == "json":
        _print_json(rows)
        return 0
    lines: list[str] = []
    phase = ""
    for row in rows:
        if row["phase"] != phase:
            phase = str(row["phase"])
            lines.append(f"{phase}:")
        pointer = f"  [{row['pointer']}]" if row["pointer"] else ""
        lines.append(f"{row['number']:>4}  {row['side']:<8} {row['step']}{pointer}")
        if row["undo"]:
            lines.append(f"{'':<15}undo: {row['undo']}")
    print_out("".join(f"{line}\n" for line in lines))
    return 0


def _features(i: Invocation) -> int:
    _print_json(features(SUPPORTED, supported_flags()))
    return 0


def version(i: Invocation) -> int:
    """Print the version; engines read the first lines."""
    python = ".".join(str(number) for number in sys.version_info[:3])
    way = "plain Python" if LAUNCHER is None else "image"
    print_out(f"ocirt version {__version__}\nspec: {VERSION_MAX}\npython: {python}\nstart: {way}\n")
    return 0


def _help(i: Invocation) -> int:
    name = i.arguments.get("COMMAND")
    print_out(help_texts.of_command(find_command(name)) if name else help_texts.overview())
    return 0


HANDLERS: dict[str, Callable[[Invocation], int]] = {
    "create": _create,
    "start": _start,
    "run": _run,
    "exec": _exec,
    "kill": _kill,
    "delete": _delete,
    "state": _state,
    "list": _list,
    "spec": _spec,
    "validate": _validate,
    "plan": _plan,
    "features": _features,
    "version": version,
    "help": _help,
}


def _store(i: Invocation) -> Store:
    root = os.path.abspath(i.globals.maybe("root") or _default_root())
    if not root.strip("/"):
        raise UsageError("--root can't be /: containers need a directory of their own")
    return Store(root)


def _default_root() -> str:
    """Follow runc's rule: XDG_RUNTIME_DIR counts without root, and for a user namespace's root."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    if runtime_dir and (os.geteuid() or _is_root_of_user_namespace()):
        return os.path.join(runtime_dir, "ocirt")
    return "/run/ocirt"


def _is_root_of_user_namespace() -> bool:
    if os.environ.get("USER") == "root":
        return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def _create_options(i: Invocation) -> CreateOptions:
    manager = i.globals.text("cgroup-manager")
    if manager == "disabled":
        raise UsageError("--cgroup-manager disabled isn't supported yet")
    return CreateOptions(
        bundle=i.options.text("bundle"),
        config=i.options.text("config"),
        pid_file=i.options.maybe("pid-file"),
        console_socket=i.options.maybe("console-socket"),
        pidfd_socket=i.options.maybe("pidfd-socket"),
        notify_socket=os.environ.get("NOTIFY_SOCKET"),
        listen_fds=listen_fds(os.environ, os.getpid()),
        listen_names=os.environ.get("LISTEN_FDNAMES"),
        no_pivot=i.options.flag("no-pivot"),
        no_new_keyring=i.options.flag("no-new-keyring"),
        preserve_fds=i.options.number("preserve-fds"),
        systemd_cgroup=i.globals.flag("systemd-cgroup") or manager == "systemd",
        rootless=_ROOTLESS[i.globals.text("rootless")],
        trace=i.options.maybe("trace"),
    )


def indented(document: Mapping[str, object], margin: str = "") -> str:
    """Return what json.dumps(document, indent=2) does, for objects of strings and numbers.

    json has no C for anything with an indent, and what it does takes longer than all of state.
    """
    inner = margin + "  "
    members = ",\n".join(
        f"{inner}{encode_basestring_ascii(name)}: "
        + (
            encode_basestring_ascii(value)
            if isinstance(value, str)
            else indented(value, inner)
            if isinstance(value, dict)
            else str(value)
        )
        for name, value in document.items()
    )
    return f"{{\n{members}\n{margin}}}" if members else "{}"


def _print_json(document: object, indent: int | None = 2) -> None:
    print_out(json.dumps(document, indent=indent) + "\n")
