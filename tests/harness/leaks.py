# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine has more of after the tests than before: mounts, cgroups, namespaces, processes.

Mounts, cgroups and network namespaces are compared for the whole machine, as a leak may carry
any name. Others work on it too, so what comes and goes is forgiven: only what stays is reported.
What another run of these tests has at the same time is known by its mark, and left out.
Processes are ours if they carry the session's mark in their environment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.harness import cgroup, proc

# The name of a run's cgroup, up to its token.
CGROUP_PREFIX = "ocirt-test-"

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
        cgroups=frozenset(
            path for path in cgroup.every_cgroup() if not _of_another_run(path.split("/"), mark)
        ),
        network_namespaces=frozenset(
            proc.namespace(pid, "net")
            for pid in pids
            # A container that waits for start has no environment.
            if not _of_another_run([*proc.environment(pid), *proc.cgroup_names(pid)], mark)
        )
        - {""},
        processes=frozenset(
            f"{pid} {proc.command(pid)}"
            for pid in pids
            if mark in proc.environment(pid) and proc.is_running(pid)
        ),
    )


def _of_another_run(words: list[str], mark: str) -> bool:
    """Tell whether an environment or the parts of a path have the mark of tests beside these."""
    name, _, token = mark.partition("=")
    ours = {mark, f"{CGROUP_PREFIX}{token}"}
    return any(w.startswith((f"{name}=", CGROUP_PREFIX)) and w not in ours for w in words)


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
