# SPDX-License-Identifier: GPL-3.0-or-later
"""kill: send a signal to the container's process (runtime.md, "Kill")."""

from __future__ import annotations

from signal import SIGKILL

from ocirt.cgroups import manager
from ocirt.cgroups.manager import CgroupPaths
from ocirt.errors import OcirtError, StateConflictError
from ocirt.runtime.pids import open_process
from ocirt.runtime.query import Status, status_of
from ocirt.runtime.store import Store


def kill(store: Store, container_id: str, signal: int, *, everything: bool) -> None:
    """Send a signal to a created or running container's init; everything: to all its processes.

    No lock: the pidfd and the start time make sure whom the signal reaches. SIGKILL means all of a
    container whose pid namespace isn't its own, as in runc: there nobody's end ends the others.
    Raises OcirtError; a stopped container is an error without everything (engines send `kill
    --all` to be sure).
    """
    entry = store.open(container_id)
    try:
        record = entry.read_record()
        status, _ = status_of(entry, record)
    finally:
        entry.close()
    runs = status in (Status.CREATED, Status.RUNNING)
    if (
        record is not None
        and record.cgroup is not None
        and (everything or (runs and record.shares_pids and signal == SIGKILL))
    ):
        manager.kill(CgroupPaths.from_json(record.cgroup), signal)
        return
    if record is None or not runs:
        if everything:
            return
        raise StateConflictError(f"container not running (its status is {status})")
    process = open_process(record.init_pid, record.init_start)
    if process is None:
        raise StateConflictError("container not running")
    with process:
        try:
            if not process.kill(signal):
                raise StateConflictError("container not running: its process has just ended")
        except PermissionError:
            raise OcirtError(f"no permission to signal process {record.init_pid}") from None
    if signal == SIGKILL and record.cgroup is not None:
        # A paused container's process couldn't die.
        manager.thaw(CgroupPaths.from_json(record.cgroup))
