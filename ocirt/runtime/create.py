# SPDX-License-Identifier: GPL-3.0-or-later
"""create: from a bundle to a container that waits for start (runtime.md, "Create")."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import socket
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel.files import real_path, write_all
from ocirt.kernel.process import give_slot_back
from ocirt.kernel.unix import bind_in, pair
from ocirt.parts.netdevices import give_back
from ocirt.parts.step import Context, Side, Undo, UndoKind
from ocirt.plan.host import Options
from ocirt.plan.order import Plan, build
from ocirt.runtime import journal
from ocirt.runtime.activation import with_listen_fds
from ocirt.runtime.channel import Channel, News
from ocirt.runtime.execute import Execution
from ocirt.runtime.hooks import run_poststop
from ocirt.runtime.host import read_host
from ocirt.runtime.notify import make_directory, with_notify_socket
from ocirt.runtime.pids import is_alive, start_time
from ocirt.runtime.protect import protect_executable
from ocirt.runtime.store import CONFIG, SOCKET, Entry, Record, Store
from ocirt.runtime.trace import Trace
from ocirt.spec.model import Config, NamespaceType
from ocirt.spec.validate import read_config

_log = logging.getLogger("ocirt")


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What create and run take besides the id.

    bundle is a directory, config the name of the configuration in it or an absolute path;
    rootless None means: find out. trace is a file for the steps' times.
    """

    bundle: str
    config: str = "config.json"
    pid_file: str | None = None
    console_socket: str | None = None
    pidfd_socket: str | None = None
    notify_socket: str | None = None
    listen_fds: int = 0
    listen_names: str | None = None
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: int = 0
    systemd_cgroup: bool = False
    rootless: bool | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """A container that was created: its directory, still locked, and what is in its state.json.

    console is the socket on which run finds the terminal's master, -1 without one.
    """

    entry: Entry
    record: Record
    console: int


def create(store: Store, container_id: str, options: CreateOptions) -> None:
    """Create a container. Raises OcirtError, and then nothing is left of it."""
    create_locked(store, container_id, options).entry.close()


def create_locked(
    store: Store, container_id: str, options: CreateOptions, *, foreground: bool = False
) -> Created:
    """Create a container, and keep others from it; foreground is run's. As create()."""
    if options.listen_fds or options.preserve_fds:
        give_slot_back()  # its descriptor isn't the caller's
    check_options(options)
    bundle = real_path(options.bundle)
    config, text = load(bundle, options.config)
    if config.hooks.in_create():
        give_slot_back()  # nobody waits for others' programs
    terminal = config.process is not None and config.process.terminal
    check_console(terminal=terminal, console_socket=options.console_socket, detach=not foreground)
    protect_executable(config)
    config = with_listen_fds(config, options.listen_fds, options.listen_names)
    if options.notify_socket:
        config = with_notify_socket(config, f"{store.root}/{container_id}")
    plan = make_plan(config, container_id, bundle, options, foreground=foreground)
    for warning in plan.warnings:
        _log.warning(warning)
    entry = store.reserve(container_id)
    record = _record(entry, config, bundle, options)
    execution = _execution(entry, config, record)
    console = -1
    try:
        if terminal and foreground:
            console, execution.context.console = pair(socket.SOCK_STREAM)
        _create(entry, execution, text, plan, record, options)
    except BaseException as e:
        execution.leave_cpu()
        _give_devices_back(execution.context)
        _end_child(execution.context)
        stopped = execution.context.hooks_ran or "/hooks/" in getattr(e, "pointer", "")
        _take_back(entry, record, config if stopped else None)
        if console >= 0:
            os.close(console)
        raise
    finally:
        _close(execution)
    return Created(entry, record, console)


def load(bundle: str, name: str) -> tuple[Config, bytes]:
    """Read and check a bundle's configuration, logging what is only worth a warning."""
    config, text, warnings = read_config(os.path.join(bundle, name))
    for warning in warnings:
        _log.warning(str(warning))
    return config, text


def make_plan(
    config: Config, container_id: str, bundle: str, options: CreateOptions, *, foreground: bool
) -> Plan:
    """Build the plan for this host; foreground is run's."""
    host = read_host()
    rootless = options.rootless
    if rootless is None:
        rootless = host.uid != 0 or host.in_user_namespace
    return build(
        config,
        host,
        Options(
            container_id=container_id,
            bundle=bundle,
            no_pivot=options.no_pivot,
            no_new_keyring=options.no_new_keyring,
            preserve_fds=options.listen_fds + options.preserve_fds,
            rootless=rootless,
            console_socket=options.console_socket,
            foreground=foreground,
            pidfd_socket=options.pidfd_socket,
        ),
    )


def check_options(options: CreateOptions) -> None:
    """Refuse what can't be done. Raises OcirtError; call it before any descriptor is opened."""
    if options.systemd_cgroup:
        raise OcirtError("--systemd-cgroup isn't supported yet; use cgroupfs")
    check_preserved(options.listen_fds + options.preserve_fds)


def check_preserved(count: int) -> None:
    """Raise OcirtError unless so many descriptors are open from 3 on."""
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise OcirtError(f"--preserve-fds {count}: descriptor {fd} isn't open") from None


def check_console(*, terminal: bool, console_socket: str | None, detach: bool) -> None:
    """Refuse a terminal that nobody would get, or a socket that would get none, in runc's words.

    Raises OcirtError.
    """
    if terminal and detach and console_socket is None:
        raise OcirtError(
            "cannot allocate tty if ocirt will detach without setting console socket; give"
            " --console-socket, or have no terminal (/process/terminal)"
        )
    if console_socket is not None and not (terminal and detach):
        raise OcirtError("cannot use console socket if ocirt will not detach or allocate tty")


def _create(
    entry: Entry,
    execution: Execution,
    text: bytes,
    plan: Plan,
    record: Record,
    options: CreateOptions,
) -> None:
    entry.write_record(record)
    entry.write(CONFIG, text)
    if options.notify_socket:
        make_directory(entry)
    context = execution.context
    context.listener = bind_in(entry.fd, SOCKET).detach()
    if options.trace:
        with Trace(options.trace) as trace:
            execution.observe = trace.add
            _execute(execution, plan)
    else:
        _execute(execution, plan)
    record.init_pid, record.init_start = context.init_pid, context.init_start
    record.cgroup = context.cgroup.to_json() if context.cgroup else None
    record.complete = True
    entry.write_record(record)
    if options.pid_file:
        write_pid_file(options.pid_file, record.init_pid)


def _record(entry: Entry, config: Config, bundle: str, options: CreateOptions) -> Record:
    root = config.root.path if config.root else ""
    now = datetime.datetime.now(datetime.UTC)
    return Record(
        id=entry.id,
        bundle=bundle,
        rootfs=os.path.normpath(os.path.join(bundle, root)),
        oci_version=config.oci_version,
        created_at=now.isoformat().replace("+00:00", "Z"),
        owner=os.geteuid(),
        has_process=config.process is not None,
        poststart=bool(config.hooks.poststart),
        poststop=bool(config.hooks.poststop),
        shares_pids=not any(
            n.type is NamespaceType.PID and not n.path for n in config.linux.namespaces
        ),
        own_keyring=not options.no_new_keyring,
        agent=config.linux.seccomp is not None and config.linux.seccomp.notifies,
        annotations=config.annotations,
    )


def _execution(entry: Entry, config: Config, record: Record) -> Execution:
    ours, theirs = Channel.pair()

    def warn(text: str) -> None:
        if context.side is Side.RUNTIME:
            _log.warning(text)
        else:
            theirs.send(News.WARN, text=text)

    def born(pid: int, pidfd: int) -> None:
        if context.side is Side.JOINER:
            theirs.send(News.BORN, pid=pid)
            os._exit(0)
        if context.init_pid:
            os.waitpid(context.init_pid, 0)  # the joiner, which has ended
            os.close(context.init_pidfd)
        context.init_pid, context.init_pidfd = pid, pidfd
        context.init_start = start_time(pid)
        data = {"pid": pid, "start": context.init_start}
        journal.note(entry, Undo(UndoKind.PROCESS, data))

    context = Context(
        config=config,
        container_id=entry.id,
        bundle=record.bundle,
        rootfs=record.rootfs,
        warn=warn,
        born=born,
    )
    return Execution(context, ours, theirs, lambda undo: journal.note(entry, undo))


def _execute(execution: Execution, plan: Plan) -> None:
    """Run create's steps up to the last of init's, see init become the stub, run the rest."""
    last = len(plan.create) - 1
    while plan.create[last].side is not Side.INIT:
        last -= 1
    execution.run(plan.create[: last + 1])
    # Init's end of the channel closes when it executes the stub.
    execution.hear_out()
    if not is_alive(execution.context.init_pid, execution.context.init_start):
        raise OcirtError("the container's init was killed while it was being set up")
    execution.run(plan.create[last + 1 :])


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid file (bare decimal) that is never seen half written. Raises OcirtError."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, b"%d" % pid)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as e:
        raise OcirtError(f"--pid-file {path}: {(e.strerror or str(e)).lower()}") from None


def _give_devices_back(context: Context) -> None:
    try:
        give_back(context)
    except OcirtError as e:
        _log.error("a network device can't be moved back to the host: %s", e)


def _end_child(context: Context) -> None:
    if context.init_pidfd < 0:
        return
    try:
        signal.pidfd_send_signal(context.init_pidfd, signal.SIGKILL)
        os.waitpid(context.init_pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _close(execution: Execution) -> None:
    context = execution.context
    execution.close()
    for fd in (
        context.init_pidfd,
        context.listener,
        context.stub_program,
        context.own_memory,
        context.console,
        context.pidfd_socket,
        context.network,
    ):
        if fd >= 0:
            os.close(fd)
    for fd in (*context.namespaces.values(), *context.sources.values()):
        os.close(fd)
    if context.attachment is not None:
        context.attachment.close()


def _take_back(entry: Entry, record: Record, stopped: Config | None) -> None:
    """After a failure: undo what the journal names and free the id; poststop hooks if stopped."""
    try:
        journal.undo_all(entry)
        entry.remove()
    except (OcirtError, OSError) as e:
        _log.error("after the failure: %s; `ocirt delete --force %s` tries again", e, entry.id)
    entry.close()
    if stopped is not None:
        run_poststop(stopped, record)
