# SPDX-License-Identifier: GPL-3.0-or-later
"""What `exec` was asked for, and the process that makes of the container's own."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ocirt.cgroups.manager import CgroupPaths
from ocirt.errors import OcirtError
from ocirt.spec.model import Capabilities, Config, Process
from ocirt.spec.validate import read_process

_log = logging.getLogger("ocirt")


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """What exec takes besides the id.

    args is the program, unless process_file (as config.json's process) describes it. The rest
    changes single properties of the container's own process; user is (uid, gid), gid None keeps
    the container's. cgroups are as --cgroup has them: PATH or CONTROLLER[,CONTROLLER]:PATH.
    """

    args: tuple[str, ...] = ()
    process_file: str | None = None
    cwd: str | None = None
    env: tuple[str, ...] = ()
    user: tuple[int, int | None] | None = None
    additional_gids: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str | None = None
    process_label: str | None = None
    tty: bool = False
    console_socket: str | None = None
    detach: bool = False
    pid_file: str | None = None
    pidfd_socket: str | None = None
    preserve_fds: int = 0
    cgroups: tuple[str, ...] = ()
    ignore_paused: bool = False


def process_of(config: Config, options: ExecOptions) -> Process:
    """Return what to run: the file's or the container's process with the caller's changes.

    What is odd about a file is logged. Raises OcirtError, with the findings for one that isn't
    valid.
    """
    process = config.process or Process(cwd="/")
    args, terminal, size = options.args, False, None
    if options.process_file is not None:
        described, warnings = read_process(options.process_file)
        for warning in warnings:
            _log.warning("%s: %s", options.process_file, warning)
        process = _like(described, process)
        args, terminal, size = process.args, process.terminal, process.console_size
    if not args:
        raise OcirtError("/args: is missing: which program?")
    for entry in options.env:
        if entry.find("=") < 1:
            raise OcirtError(f"--env {entry}: invalid environment variable; give NAME=VALUE")
    user = process.user
    if options.user is not None:
        uid, gid = options.user
        user = replace(user, uid=uid, gid=user.gid if gid is None else gid)
    if options.additional_gids:
        user = replace(user, additional_gids=(*user.additional_gids, *options.additional_gids))
    return replace(
        process,
        args=args,
        terminal=terminal or options.tty,
        console_size=size,
        cwd=process.cwd if options.cwd is None else options.cwd,
        env=(*process.env, *options.env),
        user=user,
        capabilities=_with(process.capabilities, options.capabilities),
        no_new_privileges=process.no_new_privileges or options.no_new_privileges,
        apparmor_profile=options.apparmor_profile or process.apparmor_profile,
        selinux_label=options.process_label or process.selinux_label,
    )


def _like(process: Process, own: Process) -> Process:
    """Return a process with what its file leaves open as the container's own has it, as runc."""
    return replace(
        process,
        capabilities=own.capabilities if process.capabilities is None else process.capabilities,
        rlimits=process.rlimits or own.rlimits,
        oom_score_adj=own.oom_score_adj if process.oom_score_adj is None else process.oom_score_adj,
        scheduler=process.scheduler or own.scheduler,
        io_priority=process.io_priority or own.io_priority,
        exec_cpu_affinity=process.exec_cpu_affinity or own.exec_cpu_affinity,
        apparmor_profile=process.apparmor_profile or own.apparmor_profile,
        selinux_label=process.selinux_label or own.selinux_label,
    )


def _with(own: Capabilities | None, more: Sequence[str]) -> Capabilities | None:
    """Add capabilities as runc does: to all sets but the inheritable and ambient ones."""
    if not more:
        return own
    own = own or Capabilities()
    return replace(
        own,
        bounding=(*own.bounding, *more),
        effective=(*own.effective, *more),
        permitted=(*own.permitted, *more),
    )


def below(paths: CgroupPaths, wanted: Sequence[str]) -> CgroupPaths:
    """Return where in the container's cgroups to go: --cgroup's paths are below its own.

    Raises OcirtError for a path that would leave them, or a controller that isn't there.
    """
    v1, unified = dict(paths.v1), paths.unified
    for text in wanted:
        controllers, colon, path = text.rpartition(":")
        inner = posixpath.normpath("/" + path).lstrip("/")
        if ".." in path.split("/"):
            raise OcirtError(f"--cgroup {text}: {path} would leave the container's cgroup")
        if unified:
            if colon:
                raise OcirtError(f"--cgroup {text}: cgroup v2 has one path for all controllers")
            unified = posixpath.join(paths.unified, inner).rstrip("/")
            continue
        for name in controllers.split(",") if colon else v1:
            key = name if name in paths.v1 else f"name={name}"
            if key not in paths.v1:
                known = ", ".join(sorted(paths.v1))
                raise OcirtError(f"--cgroup {text}: no controller {name!r} here, but {known}")
            v1[key] = posixpath.join(paths.v1[key], inner).rstrip("/")
    return CgroupPaths(v1, unified)
