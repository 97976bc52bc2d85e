# SPDX-License-Identifier: GPL-3.0-or-later
"""One function per command: values in, one call into the room that does it, output out."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

from ocirt import __version__
from ocirt.cli import help as help_texts
from ocirt.cli.log import output
from ocirt.cli.parse import Invocation
from ocirt.cli.table import BY_NAME
from ocirt.errors import OcirtError, UsageError
from ocirt.parts.mount_options import SUPPORTED
from ocirt.runtime import query
from ocirt.runtime.create import CreateOptions, create
from ocirt.runtime.delete import delete
from ocirt.runtime.kill import kill
from ocirt.runtime.plan import describe
from ocirt.runtime.run import run
from ocirt.runtime.start import start
from ocirt.runtime.store import Store
from ocirt.spec.defaults import default_config
from ocirt.spec.features import features
from ocirt.spec.validate import Kind, check_document

SPEC_VERSION = "1.3.0"


def _store(i: Invocation) -> Store:
    root = i.globals["root"]
    path = os.path.abspath(str(root) if root else _default_root())
    if path == "/":
        raise UsageError("--root can't be /")
    return Store(path)


def _default_root() -> str:
    """Return runc's rule: below XDG_RUNTIME_DIR without root, or as root of a user namespace."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    if runtime_dir and (os.geteuid() or _is_namespaced_root()):
        return os.path.join(runtime_dir, "ocirt")
    return "/run/ocirt"


def _is_namespaced_root() -> bool:
    if os.environ.get("USER") == "root":
        return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def _create_options(i: Invocation) -> CreateOptions:
    rootless = {"true": True, "false": False, "auto": None}[str(i.globals["rootless"])]
    manager = i.globals["cgroup-manager"]
    if manager == "disabled":
        raise UsageError("--cgroup-manager disabled isn't supported yet")
    return CreateOptions(
        bundle=i.text("bundle"),
        config=i.text("config"),
        pid_file=i.maybe("pid-file"),
        console_socket=i.maybe("console-socket"),
        no_pivot=i.flag("no-pivot"),
        no_new_keyring=i.flag("no-new-keyring"),
        preserve_fds=i.number("preserve-fds"),
        systemd_cgroup=bool(i.globals["systemd-cgroup"]) or manager == "systemd",
        rootless=rootless,
        trace=i.maybe("trace"),
    )


def _create(i: Invocation) -> int:
    create(_store(i), i.arguments["ID"], _create_options(i))
    return 0


def _start(i: Invocation) -> int:
    start(_store(i), i.arguments["ID"])
    return 0


def _run(i: Invocation) -> int:
    return run(
        _store(i),
        i.arguments["ID"],
        _create_options(i),
        detach=i.flag("detach"),
        keep=i.flag("keep"),
        subreaper=not i.flag("no-subreaper"),
    )


def _kill(i: Invocation) -> int:
    number = signal_number(i.arguments.get("SIGNAL", "TERM"))
    kill(_store(i), i.arguments["ID"], number, everything=i.flag("all"))
    return 0


def signal_number(text: str) -> int:
    """Return the number of a signal given as 9, KILL or SIGKILL. Raises UsageError."""
    if text.isascii() and text.isdigit():
        if 1 <= int(text) <= 64:
            return int(text)
    else:
        name = text.upper()
        name = name if name.startswith("SIG") else f"SIG{name}"
        try:
            return signal.Signals[name]
        except KeyError:
            pass
    raise UsageError(f"unknown signal {text!r}; give a name such as TERM or a number from 1 to 64")


def _delete(i: Invocation) -> int:
    delete(_store(i), i.arguments["ID"], force=i.flag("force"))
    return 0


def _state(i: Invocation) -> int:
    output(json.dumps(query.state(_store(i), i.arguments["ID"]), indent=2) + "\n")
    return 0


def _list(i: Invocation) -> int:
    if i.flag("quiet"):
        output("".join(f"{name}\n" for name in _store(i).ids()))
        return 0
    rows = query.list_containers(_store(i))
    if i.text("format") == "json":
        output(json.dumps(rows) + "\n")
        return 0
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    table = [[k.upper() for k in keys], *([str(row[k]) for k in keys] for row in rows)]
    widths = [max(12, *(len(line[c]) + 3 for line in table)) for c in range(len(keys))]
    for line in table:
        output("".join(f"{v:<{w}}" for v, w in zip(line, widths, strict=True)).rstrip() + "\n")
    return 0


def _spec(i: Invocation) -> int:
    path = os.path.join(i.text("bundle"), "config.json")
    document = default_config(rootless=i.flag("rootless"))
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json.dumps(document, indent="\t") + "\n")
    except FileExistsError:
        raise OcirtError(f"{path} exists; remove it first, it won't be overwritten") from None
    except OSError as e:
        raise OcirtError(f"{path}: {(e.strerror or '').lower()}") from None
    return 0


def _validate(i: Invocation) -> int:
    path = os.path.join(i.text("bundle"), i.text("config"))
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as e:
        raise OcirtError(
            f"{path}: {(e.strerror or '').lower()}; -b names the bundle, `ocirt spec` makes a"
            " config.json"
        ) from None
    report = check_document(data, path, Kind.CONFIG)
    if i.text("format") == "json":
        output(json.dumps(report.to_json(), indent=2) + "\n")
    else:
        for finding in report.errors:
            output(f"error: {finding}\n")
        for finding in report.warnings:
            output(f"warning: {finding}\n")
        if not report.errors:
            output(f"{path}: valid\n")
    return 1 if report.errors else 0


def _plan(i: Invocation) -> int:
    rows = describe(_store(i), i.arguments.get("ID"), _create_options(i))
    if i.text("format") == "json":
        output(json.dumps(rows, indent=2) + "\n")
        return 0
    phase = ""
    for row in rows:
        if row["phase"] != phase:
            phase = str(row["phase"])
            output(f"{phase}:\n")
        pointer = f"  [{row['pointer']}]" if row["pointer"] else ""
        output(f"{row['number']:>4}  {row['side']:<8} {row['step']}{pointer}\n")
        if row["undo"]:
            output(f"{'':<15}undo: {row['undo']}\n")
    return 0


def _features(i: Invocation) -> int:
    output(json.dumps(features(SUPPORTED), indent=4) + "\n")
    return 0


def version(i: Invocation) -> int:
    """Print the version; engines read the first line."""
    python = ".".join(str(n) for n in sys.version_info[:3])
    output(
        f"ocirt version {__version__}\nspec: {SPEC_VERSION}\npython: {python}\n"
        "start: plain Python\n"
    )
    return 0


def _help(i: Invocation) -> int:
    name = i.arguments.get("COMMAND")
    if name is not None and name not in BY_NAME:
        raise UsageError(f"unknown command {name!r}; `ocirt help` lists them")
    output(help_texts.of_command(BY_NAME[name]) if name else help_texts.overview())
    return 0


HANDLERS: dict[str, Callable[[Invocation], int]] = {
    "create": _create,
    "start": _start,
    "run": _run,
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
