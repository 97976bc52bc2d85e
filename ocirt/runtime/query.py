# SPDX-License-Identifier: GPL-3.0-or-later
"""state and list: what a container is right now (runtime.md, "Query State"). Changes nothing."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from enum import StrEnum

from ocirt.errors import ContainerNotFoundError, OcirtError
from ocirt.kernel.files import read_all
from ocirt.kernel.unix import connect_in
from ocirt.parts.process import is_stub
from ocirt.runtime import journal
from ocirt.runtime.pids import is_alive
from ocirt.runtime.store import SOCKET, Entry, Record, Store

_log = logging.getLogger("ocirt")


class Status(StrEnum):
    """runtime.md, "State"."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"


def status_of(entry: Entry, record: Record | None) -> tuple[Status, int]:
    """Return a container's status and init's pid (0 unless it runs).

    Init's life is in /proc, and what it executes.
    """
    if record is None or not record.complete:
        pid = _pid_by_journal(entry)
        return (Status.CREATING, pid) if pid or entry.is_locked() else (Status.STOPPED, 0)
    if not is_alive(record.init_pid, record.init_start):
        return Status.STOPPED, 0
    return (Status.CREATED if _waits(entry, record) else Status.RUNNING), record.init_pid


def _waits(entry: Entry, record: Record) -> bool:
    """Tell whether init is still the stub, whose socket is there until the program runs.

    Where a `start` was killed that is left over, and a program that calls itself the stub is
    believed: what changes a container has to ask (answers).
    """
    try:
        return is_stub(record.init_pid) and os.access(SOCKET, os.F_OK, dir_fd=entry.fd)
    except OSError:
        return answers(entry)  # not allowed to look


def answers(entry: Entry) -> bool:
    """Tell whether somebody waits for start; this wakes the stub."""
    waiting = connect_in(entry.fd, SOCKET)
    if waiting is not None:
        waiting.close()
    return waiting is not None


def _pid_by_journal(entry: Entry) -> int:
    """Return init's pid while create is at work, or after it was killed."""
    for undo in reversed(journal.read(entry)):
        if "pid" in undo.data and is_alive(undo.data["pid"], undo.data["start"]):
            return int(undo.data["pid"])
    return 0


def state(store: Store, container_id: str) -> dict[str, object]:
    """Return a container's state as JSON-ready data.

    The specification's properties, and as in runc rootfs, created and owner. Raises
    ContainerNotFoundError.
    """
    with closing(store.open(container_id)) as entry:
        return _state(entry)


def _state(entry: Entry) -> dict[str, object]:
    record = entry.read_record()
    if record is None:
        raise ContainerNotFoundError(
            f"container does not exist: {entry.id} (its create has not come far enough)"
        )
    status, pid = status_of(entry, record)
    document: dict[str, object] = {
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": str(status),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created_at,
    }
    if record.annotations:
        document["annotations"] = record.annotations
    document["owner"] = ""
    return document


def list_containers(store: Store) -> list[dict[str, object]]:
    """Return the states of all containers; one that can't be read is warned about and left out."""
    owners: dict[int, str] = {}
    states: list[dict[str, object]] = []
    for container_id in store.ids():
        try:
            with closing(store.open(container_id)) as entry:
                document = _state(entry)
                owner = os.fstat(entry.fd).st_uid
        except ContainerNotFoundError:
            continue  # deleted meanwhile
        except (OcirtError, OSError) as e:
            _log.warning("container %s: %s", container_id, e)
            continue
        if owner not in owners:
            owners[owner] = _user_name(owner)
        document["owner"] = owners[owner]
        states.append(document)
    return states


def _user_name(uid: int) -> str:
    """Return a user's name by /etc/passwd (the image has no name service), or #uid."""
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return f"#{uid}"
    try:
        lines = read_all(fd).split(b"\n")
    finally:
        os.close(fd)
    for line in lines:
        fields = line.split(b":")
        if len(fields) > 2 and fields[2] == b"%d" % uid:
            return fields[0].decode(errors="replace")
    return f"#{uid}"
