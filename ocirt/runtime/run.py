# SPDX-License-Identifier: GPL-3.0-or-later
"""run: create and start, and in the foreground wait for the end and delete."""

from __future__ import annotations

import logging
import os
import signal

import prctl

from ocirt.errors import OcirtError
from ocirt.runtime.create import CreateOptions, create_entry
from ocirt.runtime.start import start_entry
from ocirt.runtime.store import Store
from ocirt.runtime.takedown import destroy

_log = logging.getLogger("ocirt")

# Signals that concern this process itself; all others are the container's.
_OWN = {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGURG}


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
    forwarded = set(signal.valid_signals()) - _OWN
    # Nothing is lost: what arrives before init exists waits until we ask for it.
    previous = set() if detach else signal.pthread_sigmask(signal.SIG_BLOCK, forwarded | _WAKES)
    try:
        if subreaper and not detach:
            prctl.set_child_subreaper(1)
        entry = create_entry(store, container_id, options)
        record = entry.read_record()
        if record is None:
            raise OcirtError(f"container {container_id} vanished while it was being created")
        try:
            start_entry(entry)
        except BaseException:
            if entry.is_current():
                destroy(entry, record)
            raise
        if detach:
            entry.close()
            return 0
        entry.close()
        status = _wait(record.init_pid, forwarded)
        if not keep:
            with store.locked(container_id) as entry:
                destroy(entry, record)
        return status
    finally:
        if not detach:
            # What came too late for the container isn't meant for us either.
            while signal.sigtimedwait(forwarded | _WAKES, 0):
                continue
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)


_WAKES = {signal.SIGCHLD}


def _wait(pid: int, forwarded: set[signal.Signals]) -> int:
    """Forward signals to init until it ends, reaping whatever else becomes our child."""
    while True:
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                raise OcirtError("the container's init was reaped by somebody else") from None
            if ended == 0:
                break
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code
        arrived = signal.sigwait(forwarded | _WAKES)
        if arrived != signal.SIGCHLD:
            try:
                os.kill(pid, arrived)
            except ProcessLookupError:
                continue
