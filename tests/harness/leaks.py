# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine has more of after the tests than before: mounts, cgroups, namespaces, processes.

Mounts, cgroups and network namespaces are compared for the whole machine, as a leak may carry
any name. Others work on it too, so what comes and goes is forgiven: only what stays is reported.
Processes are ours if they carry the session's mark in their environment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.harness import cgroup, proc

POLLS = 50
PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Each field is a set of readable names."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    network_namespaces: frozenset[str]
    processes: frozenset[str]


def snapshot(mark: str) -> Snapshot:
    """Return what is there now. mark is the NAME=value in the environment of our processes."""
    pids = proc.pids()
    return Snapshot(
        mounts=frozenset(proc.mountinfo()),
        cgroups=frozenset(cgroup.every_cgroup()),
        network_namespaces=frozenset(proc.namespace(pid, "net") for pid in pids) - {""},
        processes=frozenset(
            f"{pid} {proc.command(pid)}"
            for pid in pids
            if proc.has_environment(pid, mark) and proc.is_running(pid)
        ),
    )


def leaked(before: Snapshot, mark: str) -> str:
    """Return a report of what is new since before and stays, "" if nothing."""
    remaining: list[tuple[str, frozenset[str]]] = []
    for poll in range(POLLS):
        new = _difference(before, snapshot(mark))
        if poll:
            known = dict(remaining)
            new = [(kind, names & known[kind]) for kind, names in new]
        remaining = new
        if not any(names for _, names in remaining):
            return ""
        time.sleep(PAUSE_SECONDS)
    return "\n".join(
        f"left behind, {kind}: {_explain(kind, name)}"
        for kind, names in remaining
        for name in sorted(names)
    )


def _difference(before: Snapshot, after: Snapshot) -> list[tuple[str, frozenset[str]]]:
    return [
        ("mount", after.mounts - before.mounts),
        ("mount that was there and is gone or changed", before.mounts - after.mounts),
        ("cgroup", after.cgroups - before.cgroups),
        ("network namespace", after.network_namespaces - before.network_namespaces),
        ("process", after.processes - before.processes),
    ]


def _explain(kind: str, name: str) -> str:
    if kind != "network namespace":
        return name
    holders = [pid for pid in proc.pids() if proc.namespace(pid, "net") == name]
    return f"{name} of " + ", ".join(f"{pid} ({proc.command(pid)})" for pid in holders)
