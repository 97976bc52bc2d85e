# SPDX-License-Identifier: GPL-3.0-or-later
"""run: create and start, and in the foreground wait for the end and delete."""

from __future__ import annotations

import socket

import prctl

from ocirt.errors import OcirtError
from ocirt.parts.terminal import receive_master
from ocirt.runtime.create import CreateOptions, check_options, create_entry
from ocirt.runtime.foreground import HeldSignals, prepare_terminal, wait_for
from ocirt.runtime.notify import listen
from ocirt.runtime.start import start_entry, wait_until_ready
from ocirt.runtime.store import Entry, Store
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
    if detach:
        entry = create_entry(store, container_id, options)
        return _carry(entry, None, options.notify_socket, keep=keep)
    if subreaper:
        prctl.set_child_subreaper(1)
    # Where the terminal comes from, if config.json wants one.
    console, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    entry = create_entry(store, container_id, options, theirs.detach())
    with console:
        return _carry(entry, console, options.notify_socket, keep=keep)


def _carry(
    entry: Entry, console: socket.socket | None, notify_socket: str | None, *, keep: bool
) -> int:
    """Take a created container through its life; whatever ends a run ends its container.

    console is where its terminal comes from, None if nobody waits for the end.
    """
    try:
        terminal = -1 if console is None else receive_master(console)
        if terminal >= 0:
            prepare_terminal(terminal)
        record = entry.read_record()
        if record is None:
            raise OcirtError(f"container {entry.id} vanished while it was being created")
        notify = listen(entry, notify_socket)
        if console is None:
            start_entry(entry)
            entry.unlock()
            if notify is not None:
                wait_until_ready(entry, notify)
            return 0
        with HeldSignals():
            start_entry(entry)
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
