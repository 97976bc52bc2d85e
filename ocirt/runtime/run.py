# SPDX-License-Identifier: GPL-3.0-or-later
"""run: create and start, and in the foreground wait for the end and delete."""

from __future__ import annotations

import socket

import prctl

from ocirt.parts.terminal import receive_master
from ocirt.runtime.create import Created, CreateOptions, check_options, create_locked
from ocirt.runtime.foreground import HeldSignals, prepare_terminal, wait_for
from ocirt.runtime.notify import listen
from ocirt.runtime.start import start_entry, wait_until_ready
from ocirt.runtime.store import Store
from ocirt.runtime.takedown import destroy


def run(
    store: Store,
    container_id: str,
    options: CreateOptions,
    *,
    detach: bool,
    keep: bool,
    subreaper: bool,
) -> int:
    """Run a container; returns the program's exit status, 128 + n if signal n ended it.

    Detached 0 is returned as soon as it runs. keep leaves the stopped container for `delete`;
    subreaper makes this process the parent of what the container's init leaves. Raises OcirtError.
    """
    check_options(options)
    if subreaper and not detach:
        prctl.set_child_subreaper(1)
    created = create_locked(store, container_id, options, foreground=not detach)
    return _carry(created, options.notify_socket, detach=detach, keep=keep)


def _carry(created: Created, notify_socket: str | None, *, detach: bool, keep: bool) -> int:
    """Take a created container through its life; whatever ends a run ends its container."""
    entry, record = created.entry, created.record
    terminal = -1
    try:
        if created.console >= 0:
            with socket.socket(fileno=created.console) as console:
                terminal = receive_master(console)
            if terminal >= 0:
                prepare_terminal(terminal)
        notify = listen(entry, notify_socket)
        if detach:
            start_entry(entry, record)
            entry.unlock()
            if notify is not None:
                wait_until_ready(entry, notify)
            return 0
        with HeldSignals():
            start_entry(entry, record)
            entry.unlock()
            status = wait_for(record.init_pid, terminal, notify)
        if not keep:
            entry.lock()
            if entry.is_current():
                destroy(entry, record)
    except BaseException:
        if entry.is_current():
            destroy(entry, entry.read_record())
        raise
    finally:
        entry.close()
    return status
