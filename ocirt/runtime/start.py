# SPDX-License-Identifier: GPL-3.0-or-later
"""start: let the waiting stub run the program (runtime.md, "Start")."""

from __future__ import annotations

import errno
import os
import socket

from ocirt.errors import OcirtError, StateConflictError
from ocirt.kernel.stublist import Failure, Report
from ocirt.kernel.unix import connect_in
from ocirt.parts.hooks import hook_state, with_output
from ocirt.runtime.agent import Agent, connected, hear
from ocirt.runtime.hooks import describe_report, kept_config, log_start_hooks, run_poststart
from ocirt.runtime.notify import Notify, listen
from ocirt.runtime.pids import is_alive, open_process
from ocirt.runtime.query import Status, status_of
from ocirt.runtime.store import SOCKET, Entry, Record, Store
from ocirt.runtime.takedown import destroy


def start(store: Store, container_id: str, notify_socket: str | None = None) -> None:
    """Start a created container. Raises OcirtError; in the wrong status nothing changes.

    notify_socket is that of the service manager: then this waits until the program is ready, or
    has ended.
    """
    with store.locked(container_id) as entry:
        notify = listen(entry, notify_socket)
        start_entry(entry, entry.read_record())
        if notify is not None:
            entry.unlock()
            wait_until_ready(entry, notify)


def wait_until_ready(entry: Entry, notify: Notify) -> None:
    """Wait until the program of a started container says that it is ready, or has ended."""
    record = entry.read_record()
    process = record and open_process(record.init_pid, record.init_start)
    if process:
        with process, notify:
            notify.wait(process)


def start_entry(entry: Entry, record: Record | None) -> None:
    """Start the container of a locked directory, whose record is what state.json says."""
    # Who answers waits for start, whatever else there is to be seen.
    waiting = record is not None and record.complete
    channel = connect_in(entry.fd, SOCKET) if waiting else None
    if record is None or channel is None:
        status, _ = status_of(entry, record)
        raise StateConflictError(_REFUSALS.get(status, _REFUSALS[Status.RUNNING]))
    with channel:
        if not record.has_process:
            raise OcirtError(
                "cannot start a container without a process: config.json had none when it was"
                " created"
            )
        if record.agent:
            config = kept_config(entry)
            created = Status.CREATED
            state = hook_state(config, record.id, created, record.init_pid, record.bundle)
            with connected(config.linux.seccomp, state) as agent:
                _go(entry, record, channel, agent)
        else:
            _go(entry, record, channel, None)
    if record.poststart:
        try:
            run_poststart(entry, record)
        except OcirtError:
            # runtime.md, step 10: stop the container and go on with its destruction.
            destroy(entry, record)
            raise


# runc's words.
_REFUSALS = {
    Status.STOPPED: "cannot start a container that has stopped",
    Status.RUNNING: "cannot start an already running container",
    Status.CREATING: "cannot start a container that is still being created",
}


def _go(entry: Entry, record: Record, channel: socket.socket, agent: Agent | None) -> None:
    """Say "go", and wait until the program runs or the stub has said why not."""
    try:
        channel.sendall(b"g", socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        raise OcirtError("the container's init died before it could be started") from None
    try:
        report = hear(channel, agent, record.init_pid)
    finally:
        # Whatever came of it, there is nobody left to say "go" to.
        entry.unlink(SOCKET)
    log_start_hooks(entry, report.hooks)
    if not report.executed:
        message = _explain(report, record)
        if report.failure in (Failure.BY_STATUS, Failure.BY_TIMEOUT):
            # A startContainer hook. runtime.md, step 8: stop the container and destroy it.
            destroy(entry, record)
        raise OcirtError(message)


def _explain(report: Report, record: Record) -> str:
    if report.failure is None:
        alive = is_alive(record.init_pid, record.init_start)
        return (
            "the container's init ended before it ran the program"
            + (" (it still exists)" if alive else "")
            + ": killed, perhaps for want of memory (see linux.resources.memory.limit)"
        )
    if report.failure is Failure.BY_ERRNO:
        name = errno.errorcode.get(report.number, "")
        words = os.strerror(report.number).lower()
        return f"{report.text}: {words}" + (f" ({name})" if name else "")
    end = describe_report(report.failure, report.number)
    return f"{report.text}: {with_output(end, report.hooks[-1].said.strip())}"
