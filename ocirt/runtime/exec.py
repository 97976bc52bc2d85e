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

from ocirt.cgroups import manager
from ocirt.cgroups.manager import CgroupPaths
from ocirt.errors import OcirtError, StateConflictError, describe
from ocirt.kernel.affinity import go_anywhere
from ocirt.kernel.files import open_procfs
from ocirt.kernel.process import sealed_memfd
from ocirt.kernel.stublist import PID_SIZE, Failure, Report
from ocirt.kernel.terminal import Size, set_size
from ocirt.parts import credentials, enter, lsm
from ocirt.parts.executable import FindExecutable
from ocirt.parts.hooks import hook_state
from ocirt.parts.idmap import user_outside
from ocirt.parts.limits import oom_score_adj
from ocirt.parts.process import send_pidfd, stub_file
from ocirt.parts.rootpath import Root
from ocirt.parts.seccomp import CompileFilter
from ocirt.parts.stdio import OwnStdio, close_on_exec_from
from ocirt.parts.step import Context
from ocirt.parts.terminal import connect_console, open_pair, send_master
from ocirt.runtime.agent import connected, hear
from ocirt.runtime.create import check_console, check_preserved, write_pid_file
from ocirt.runtime.exec_options import ExecOptions, below, process_of
from ocirt.runtime.foreground import HeldSignals, prepare_terminal, wait_for
from ocirt.runtime.host import bounding_set, last_capability
from ocirt.runtime.pids import open_process
from ocirt.runtime.query import Status, status_of
from ocirt.runtime.store import CONFIG, Entry, Record, Store
from ocirt.spec.model import Config, NamespaceType, Process
from ocirt.spec.validate import config_from_bytes

#: exec's exit status when it couldn't run the program, as runc's.
NOT_RUN = 255


def exec_in(store: Store, container_id: str, options: ExecOptions) -> int:
    """Run a program in a container; returns its exit status, 128 + n if signal n ended it.

    Detached, 0 is returned as soon as it runs. Raises OcirtError with exit status 255, which
    tells a failure of ours from one of the program's.
    """
    try:
        check_preserved(options.preserve_fds)
        with store.locked(container_id, shared=True) as entry:
            if options.detach:
                _tell(options, _start(entry, options)[0])
                return 0
            with HeldSignals():
                pid, terminal = _start(entry, options)
                entry.unlock()
                _tell(options, pid)
                return wait_for(pid, terminal)
    except OcirtError as e:
        e.exit_status = NOT_RUN
        raise
    except OSError as e:
        error = OcirtError(describe(e))
        error.exit_status = NOT_RUN
        raise error from e


def _tell(options: ExecOptions, pid: int) -> None:
    """Tell who wants to know which process it is; a program that nobody knows of is ended."""
    try:
        if options.pidfd_socket is not None:
            send_pidfd(options.pidfd_socket, b"setns", os.pidfd_open(pid))
        if options.pid_file:
            write_pid_file(options.pid_file, pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _start(entry: Entry, options: ExecOptions) -> tuple[int, int]:
    """Return the pid of the program, which runs, and its terminal's master, -1 if we have none."""
    record = entry.read_record()
    status, _ = status_of(entry, record)
    if record is None or status not in (Status.CREATED, Status.RUNNING):
        raise StateConflictError(f"cannot exec in a {status} container")
    if options.ignore_paused:
        # It may have to wait for what resumes the container, or deletes it.
        entry.unlock()
    config = config_from_bytes(entry.read(CONFIG), f"{entry.path}/{CONFIG}")
    init = open_process(record.init_pid, record.init_start)
    if init is None:
        raise StateConflictError("cannot exec in a stopped container")
    with init:
        context = _context(entry, record, config, init.fd)
        _refuse_paused(context, options)
        return _enter(context, config, record, options)


def _refuse_paused(c: Context, options: ExecOptions) -> None:
    """Raise StateConflictError rather than start what would be frozen with the container."""
    if not options.ignore_paused and c.cgroup is not None and manager.frozen(c.cgroup):
        raise StateConflictError(
            "cannot exec in a paused container (use --ignore-paused to have it run when the"
            " container does)"
        )


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
        init_pid=record.init_pid,
        init_pidfd=pidfd,
        init_start=record.init_start,
        cgroup=CgroupPaths.from_json(record.cgroup) if record.cgroup else None,
    )


def _enter(c: Context, config: Config, record: Record, options: ExecOptions) -> tuple[int, int]:
    process = process_of(config, options)
    for step in lsm.early_steps(process):
        step.action.run(c)
    check_console(
        terminal=process.terminal, console_socket=options.console_socket, detach=options.detach
    )
    container_cgroup = c.cgroup
    if c.cgroup is not None:
        c.cgroup = below(c.cgroup, options.cgroups)
    enter.OpenDirectory(process.cwd).run(c)
    FindExecutable(process.args[0], process.env, process.cwd).run(c)
    if config.linux.seccomp is not None:
        CompileFilter(config.linux.seccomp).run(c)
    master = _terminal(c, process, options) if process.terminal else -1
    _give_stdio(c, process)
    own_users = any(n.type is NamespaceType.USER for n in config.linux.namespaces)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid_from, pid_to = os.pipe2(os.O_CLOEXEC)
    c.inherited += [theirs.fileno(), pid_to, c.init_pidfd, c.root.fd]
    if lsm.wants_label(process):
        c.inherited.append(c.proc)
        lsm.hand_procfs_on(c, c.proc)
    last_cap = last_capability()
    for step in (
        *enter.steps(
            process,
            cgroup=container_cgroup,
            report=theirs.fileno(),
            pid_to=pid_to,
            own_keyring=record.own_keyring,
            exact_cgroup=bool(options.cgroups),
        ),
        *credentials.steps(
            config,
            process,
            available=(1 << last_cap + 1) - 1 if own_users else bounding_set(),
            last_cap=last_cap,
            first_free_fd=3 + options.preserve_fds,
        ),
    ):
        step.action.run(c)
    # What our caller leaks ends with the stub's exec: nothing of the host's is open inside.
    close_on_exec_from(3 + options.preserve_fds)
    state = hook_state(config, c.container_id, Status.RUNNING, c.init_pid, c.bundle)
    with connected(config.linux.seccomp, state) as agent:
        with oom_score_adj(c.proc, process.oom_score_adj):
            _spawn(c)
        theirs.close()
        os.close(pid_to)
        pid = _pid(pid_from)
        try:
            with ours:
                report = hear(ours, agent, pid)
        except OcirtError:
            # Without its agent the stub ends.
            os.waitpid(pid, 0)
            raise
    go_anywhere(c.cpus)
    if not report.executed:
        if pid:
            os.waitpid(pid, 0)
        raise OcirtError(_explain(report))
    return pid, master


def _give_stdio(c: Context, process: Process) -> None:
    """Give the program's stdio to its user, if the container's user is anybody out here."""
    uid = user_outside(c.proc, c.init_pid, process.user.uid)
    if uid is not None:
        OwnStdio(uid, (c.terminal,) if c.terminal >= 0 else (0, 1, 2)).run(c)


def _terminal(c: Context, process: Process, options: ExecOptions) -> int:
    """Make the terminal in the container's devpts; its master stays here, or goes to a socket."""
    if options.console_socket is None:
        master, c.terminal = open_pair(c.root, c.proc)
    else:
        with connect_console(options.console_socket) as console:
            master, c.terminal = open_pair(c.root, c.proc)
            send_master(console, master)
    if process.console_size is not None:
        size = process.console_size
        set_size(master, Size(size.height, size.width))
    if options.console_socket is None:
        prepare_terminal(master)
        return master
    os.close(master)
    return -1


def _spawn(c: Context) -> None:
    """Execute the stub with its list, in a child that never runs Python (posix_spawn(3)).

    What signals do by then is of no matter: the stub sets all back to their default.
    """
    program = stub_file()
    content = sealed_memfd("ocirt-list", c.stub.encode(), executable=False)
    for fd in (content, *c.inherited):
        os.set_inheritable(fd, True)
    stdio = [(os.POSIX_SPAWN_DUP2, c.terminal, fd) for fd in (0, 1, 2)] if c.terminal >= 0 else []
    child = os.posix_spawn(
        f"/proc/self/fd/{program}",
        [b"%d" % content],
        {},
        file_actions=stdio,
        setsigmask=(),
    )
    for fd in (content, *c.inherited):
        os.set_inheritable(fd, False)
    if c.terminal >= 0:
        os.close(c.terminal)
    # It ends when it has forked the process that becomes the program.
    os.waitpid(child, 0)


def _pid(pipe: int) -> int:
    data = os.read(pipe, PID_SIZE)
    os.close(pipe)
    return int(struct.unpack("=q", data)[0]) if len(data) == PID_SIZE else 0


def _explain(report: Report) -> str:
    if report.failure is not Failure.BY_ERRNO:
        return "the process died before it ran the program: killed, perhaps for want of memory"
    return f"{report.text}: {os.strerror(report.number).lower()}"
