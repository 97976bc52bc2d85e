# SPDX-License-Identifier: GPL-3.0-or-later
"""exec: another process in a running container.

The runtime stays in the host's namespaces. It writes the stub's list, executes the stub, and waits;
no interpreter and no file of the host's is ever inside (docs/maintainers.md, "Processes").
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ocirt.cgroups.manager import CgroupPaths
from ocirt.errors import OcirtError, StateConflictError
from ocirt.kernel.files import open_procfs
from ocirt.kernel.process import sealed_memfd
from ocirt.kernel.signals import ALL
from ocirt.kernel.stublist import PID_SIZE, Failure, Report, decode_report
from ocirt.parts import credentials, enter
from ocirt.parts.executable import FindExecutable
from ocirt.parts.process import stub_file
from ocirt.parts.rootpath import Root
from ocirt.parts.seccomp import CompileFilter
from ocirt.parts.stdio import OwnStdio
from ocirt.parts.step import Context
from ocirt.runtime.create import write_pid_file
from ocirt.runtime.host import read_host
from ocirt.runtime.pids import open_process
from ocirt.runtime.query import Status, status_of
from ocirt.runtime.run import wait_for
from ocirt.runtime.store import CONFIG, Entry, Record, Store
from ocirt.spec.model import Capabilities, Config, NamespaceType, Process
from ocirt.spec.validate import config_from_bytes, read_process


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """What exec takes besides the id.

    args is the program, unless process_file (as config.json's process) describes it. The rest
    changes single properties of the container's own process; user is (uid, gid), gid None keeps
    the container's.
    """

    args: tuple[str, ...] = ()
    process_file: str | None = None
    cwd: str | None = None
    env: tuple[str, ...] = ()
    user: tuple[int, int | None] | None = None
    additional_gids: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    detach: bool = False
    pid_file: str | None = None
    preserve_fds: int = 0


def exec_in(store: Store, container_id: str, options: ExecOptions) -> int:
    """Run a program in a container; returns its exit status, 128 + n if signal n ended it.

    Detached, 0 is returned as soon as it runs. Raises OcirtError with exit status 255, which
    tells a failure of ours from one of the program's.
    """
    try:
        pid = _start(store, container_id, options)
        if options.pid_file:
            write_pid_file(options.pid_file, pid)
        return 0 if options.detach else wait_for(pid)
    except OcirtError as e:
        e.exit_status = 255
        raise


def _start(store: Store, container_id: str, options: ExecOptions) -> int:
    """Return the pid of the program, which runs."""
    with store.locked(container_id) as entry:
        record = entry.read_record()
        status, _ = status_of(entry, record)
        if record is None or status is not Status.RUNNING:
            raise StateConflictError(f"cannot exec in a {status} container")
        config = config_from_bytes(entry.read(CONFIG), f"{entry.path}/{CONFIG}")
        init = open_process(record.init_pid, record.init_start)
        if init is None:
            raise StateConflictError("cannot exec in a stopped container")
        with init:
            return _enter(_context(entry, record, config, init.fd), config, options)


def _context(entry: Entry, record: Record, config: Config, pidfd: int) -> Context:
    proc = open_procfs()
    return Context(
        config=config,
        container_id=entry.id,
        bundle=record.bundle,
        rootfs=record.rootfs,
        warn=lambda text: None,
        born=lambda pid, fd: None,
        proc=proc,
        # A magic link of init's: the root that it sees, whatever is mounted there.
        root=Root(os.open(f"{record.init_pid}/root", os.O_PATH | os.O_CLOEXEC, dir_fd=proc)),
        cwd=0,  # the stub changes directory itself
        init_pid=record.init_pid,
        init_pidfd=pidfd,
        init_start=record.init_start,
        cgroup=CgroupPaths.from_json(record.cgroup) if record.cgroup else None,
    )


def _process(config: Config, options: ExecOptions) -> Process:
    """Return what to run: the container's process with the caller's changes."""
    if options.process_file is not None:
        process, _ = read_process(options.process_file)
    else:
        own = config.process or Process(cwd="/")
        process = replace(own, args=options.args, terminal=False)
    if process.terminal:
        raise OcirtError("/terminal: terminals aren't supported yet")
    if not process.args:
        raise OcirtError("/args: is missing: which program?")
    user = process.user
    if options.user is not None:
        uid, gid = options.user
        user = replace(user, uid=uid, gid=user.gid if gid is None else gid)
    user = replace(user, additional_gids=(*user.additional_gids, *options.additional_gids))
    return replace(
        process,
        cwd=process.cwd if options.cwd is None else options.cwd,
        env=(*process.env, *options.env),
        user=user,
        capabilities=_with(process.capabilities, options.capabilities),
        no_new_privileges=process.no_new_privileges or options.no_new_privileges,
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


def _enter(c: Context, config: Config, options: ExecOptions) -> int:
    process = _process(config, options)
    FindExecutable(process.args[0], process.env, process.cwd).run(c)
    if config.linux.seccomp is not None:
        CompileFilter(config.linux.seccomp).run(c)
    own_users = any(n.type is NamespaceType.USER for n in config.linux.namespaces)
    if not own_users:
        OwnStdio(process.user.uid).run(c)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid_from, pid_to = os.pipe2(os.O_CLOEXEC)
    c.inherited += [theirs.fileno(), pid_to, c.init_pidfd, c.root.fd]
    host = read_host()
    for step in (
        *enter.steps(process, report=theirs.fileno(), pid_to=pid_to),
        *credentials.steps(
            config,
            process,
            available=(1 << host.last_cap + 1) - 1 if own_users else host.bounding,
            last_cap=host.last_cap,
            first_free_fd=3 + options.preserve_fds,
        ),
    ):
        step.action.run(c)
    _spawn(c)
    theirs.close()
    os.close(pid_to)
    pid = _pid(pid_from)
    report = _report(ours)
    if not report.executed:
        if pid:
            os.waitpid(pid, 0)
        raise OcirtError(_explain(report))
    return pid


def _spawn(c: Context) -> None:
    """Execute the stub with its list, in a child that never runs Python (posix_spawn(3))."""
    program = stub_file()
    content = sealed_memfd("ocirt-list", c.stub.encode(), executable=False)
    for fd in (content, *c.inherited):
        os.set_inheritable(fd, True)
    child = os.posix_spawn(
        f"/proc/self/fd/{program}",
        [b"%d" % content],
        {},
        setsigmask=(),
        setsigdef=ALL - {signal.SIGKILL, signal.SIGSTOP},
    )
    for fd in (content, *c.inherited):
        os.set_inheritable(fd, False)
    # It ends when it has forked the process that becomes the program.
    os.waitpid(child, 0)


def _pid(pipe: int) -> int:
    data = os.read(pipe, PID_SIZE)
    os.close(pipe)
    return int(struct.unpack("=q", data)[0]) if len(data) == PID_SIZE else 0


def _report(channel: socket.socket) -> Report:
    """Read until the program runs, or the stub has said why not."""
    answer = b""
    with channel:
        while chunk := channel.recv(4096):
            answer += chunk
    return decode_report(answer)


def _explain(report: Report) -> str:
    if report.failure is not Failure.BY_ERRNO:
        return "the process died before it ran the program: killed, perhaps for want of memory"
    return f"{report.text}: {os.strerror(report.number).lower()}"
