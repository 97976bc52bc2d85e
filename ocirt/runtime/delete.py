# SPDX-License-Identifier: GPL-3.0-or-later
"""delete: remove what create made, and nothing else (runtime.md, "Delete")."""

from __future__ import annotations

import logging
import os

from ocirt.errors import ContainerNotFoundError, OcirtError, StateConflictError
from ocirt.runtime import journal
from ocirt.runtime.query import Status, answers, status_of
from ocirt.runtime.store import Entry, Record, Store
from ocirt.runtime.takedown import destroy

_log = logging.getLogger("ocirt")

# Set to "1", a created container can be deleted without --force, as runc, crun and youki allow
# against the specification.
COMPATIBILITY_SWITCH = "OCIRT_DELETE_CREATED"

# How long `delete --force` waits for the lock of an operation whose container it has killed.
_PATIENCE = 30.0


def delete(store: Store, container_id: str, *, force: bool) -> None:
    """Delete a stopped container; with force any, and one that doesn't exist is no error.

    Raises OcirtError; in the wrong status nothing changes.
    """
    try:
        entry = store.open(container_id)
    except ContainerNotFoundError:
        if force:
            return
        raise
    try:
        _delete(entry, force=force)
    finally:
        entry.close()


def _delete(entry: Entry, *, force: bool) -> None:
    if force:
        _get_lock_by_force(entry)
    else:
        entry.lock()
    if not entry.is_current():
        if force:
            return
        raise ContainerNotFoundError(f"container does not exist: {entry.id}")
    record = _record(entry, force=force)
    if not force:
        status, _ = status_of(entry, record)
        created_too = os.environ.get(COMPATIBILITY_SWITCH) == "1" and status is Status.CREATED
        if status is not Status.STOPPED and not (created_too and answers(entry)):
            # runc's words, then what to do.
            raise StateConflictError(
                f"cannot delete container {entry.id} that is not stopped: {status}; kill it"
                " first, or use `delete --force`"
            )
    destroy(entry, record)


def _record(entry: Entry, *, force: bool) -> Record | None:
    try:
        return entry.read_record()
    except OcirtError as e:
        if not force:
            raise
        _log.warning("%s", e)
        return None


def _get_lock_by_force(entry: Entry) -> None:
    """Lock the container; an operation at work on it, a create above all, loses its init."""
    if entry.lock(0):
        return
    journal.end_processes(entry)
    if not entry.lock(_PATIENCE):
        raise OcirtError(
            f"container {entry.id}: another operation has held its lock for {_PATIENCE:.0f} s"
        )
