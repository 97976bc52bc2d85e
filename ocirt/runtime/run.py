# SPDX-License-Identifier: GPL-3.0-or-later
"""run: create and start, and in the foreground wait for the end and delete."""

from __future__ import annotations

import os
import signal

import prctl

from ocirt.errors import OcirtError
from ocirt.kernel.signals import (
    ALL,
    SIG_BLOCK,
    SIG_SETMASK,
    pthread_sigmask,
    sigtimedwait,
    sigwait,
)
from ocirt.runtime.create import CreateOptions, create_entry
from ocirt.runtime.start import start_entry
from ocirt.runtime.store import Store
from ocirt.runtime.takedown import destroy

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
    if subreaper and not detach:
        prctl.set_child_subreaper(1)
    entry = create_entry(store, container_id, options)
    try:
        record = entry.read_record()
        if record is None:
            raise OcirtError(f"container {container_id} vanished while it was being created")
        start_entry(entry)
        if detach:
            return 0
        entry.unlock()
        status = wait_for(record.init_pid)
        if not keep:
            entry.lock()
            if entry.is_current():
                destroy(entry, record)
    except BaseException:
        # Whatever ends a run ends its container.
        if entry.is_current():
            destroy(entry, entry.read_record())
        raise
    finally:
        entry.close()
    return status


def wait_for(pid: int) -> int:
    """Forward signals to a child until it ends, reaping whatever else becomes our child.

    Returns its exit status, 128 + n if signal n ended it.
    """
    forwarded = ALL - _OWN
    previous = pthread_sigmask(SIG_BLOCK, forwarded | {signal.SIGCHLD})
    try:
        return _reap(pid, forwarded)
    finally:
        # What came too late for the container isn't meant for us either.
        while sigtimedwait(forwarded, 0):
            continue
        pthread_sigmask(SIG_SETMASK, previous)


def _reap(pid: int, forwarded: frozenset[int]) -> int:
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
        arrived = sigwait(forwarded | {signal.SIGCHLD})
        if arrived != signal.SIGCHLD:
            try:
                os.kill(pid, arrived)
            except ProcessLookupError:
                continue
