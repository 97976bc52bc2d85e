# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo journal: what outlives a process is written down before it exists.

A create that fails, `delete`, and `delete --force` after a runtime that was killed all do the
same: read the journal and take its records back, last first.
"""

from __future__ import annotations

import json
import os
import signal

from ocirt.cgroups import manager
from ocirt.cgroups.manager import CgroupPaths
from ocirt.errors import OcirtError
from ocirt.parts import intelrdt
from ocirt.parts.rootfs import unmount_from_host
from ocirt.parts.step import Undo, UndoKind
from ocirt.runtime.pids import open_process
from ocirt.runtime.store import JOURNAL, Entry

# How long a killed process may take to go, and a cgroup to become empty: as runc waits.
_PATIENCE = 10.0


def note(entry: Entry, undo: Undo) -> None:
    """Add a record; it is on file when this returns."""
    line = json.dumps({"kind": undo.kind, **undo.data}) + "\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(JOURNAL, flags, 0o600, dir_fd=entry.fd)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read(entry: Entry) -> list[Undo]:
    """Return the records in the order they were written; a torn last line doesn't count."""
    try:
        lines = entry.read(JOURNAL).decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    records: list[Undo] = []
    for line in lines:
        try:
            data = json.loads(line)
            records.append(Undo(UndoKind(data.pop("kind")), data))
        except (ValueError, KeyError, AttributeError):
            continue
    return records


def undo_all(entry: Entry, *, complete: bool = False) -> None:
    """Take back everything the journal names; complete says that create came to its end.

    Raises OcirtError or OSError for what can't be taken back.
    """
    records = read(entry)
    _end_processes(records)
    for record in reversed(records):
        if record.kind is UndoKind.RESCTRL:
            intelrdt.remove(record, complete=complete)
        elif record.kind is UndoKind.MOUNT:
            unmount_from_host(record)
        elif record.kind is UndoKind.CGROUP:
            _remove_cgroup(record)


def end_processes(entry: Entry) -> None:
    """Kill the processes that the journal names, also frozen ones, and wait until they are gone."""
    _end_processes(read(entry))


def _end_processes(records: list[Undo]) -> None:
    cgroups = [_own_cgroups(r) for r in records if r.kind is UndoKind.CGROUP]
    for record in reversed(records):
        if record.kind is UndoKind.PROCESS:
            _end_process(int(record.data["pid"]), int(record.data["start"]), cgroups)


def _end_process(pid: int, start: int, cgroups: list[CgroupPaths]) -> None:
    """Kill a process and wait until it is gone; nothing happens if it isn't the one meant."""
    process = open_process(pid, start)
    if process is None:
        return
    with process:
        process.kill(signal.SIGKILL)
        for paths in cgroups:
            manager.thaw(paths)
        if not process.wait(_PATIENCE):
            raise OcirtError(
                f"process {pid} was killed but doesn't end (is it frozen, or waiting for I/O?)"
            )


def _own_cgroups(record: Undo) -> CgroupPaths:
    """Return those that create made: others aren't ours to empty, to thaw or to remove."""
    return CgroupPaths.from_json(record.data["paths"]).only(tuple(record.data["made"]))


def _remove_cgroup(record: Undo) -> None:
    ours = _own_cgroups(record)
    manager.remove(
        tuple(record.data["made"]),
        deadline_seconds=_PATIENCE,
        empty=lambda: manager.kill(ours, signal.SIGKILL),
    )
