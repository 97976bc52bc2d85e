# SPDX-License-Identifier: GPL-3.0-or-later
"""Small questions that many tests ask of a container."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.harness import Container, Result, proc
from tests.harness.container import PATIENCE_SECONDS, PAUSE_SECONDS


def try_create(container: Container) -> Result:
    """Call create; the result isn't checked."""
    container.bundle.save()
    place = str(container.bundle.directory)
    return container.runtime.call("create", "--bundle", place, container.id)


def exists(container: Container) -> bool:
    return container.runtime.call("state", container.id).status == 0


def assert_create_refused(container: Container) -> Result:
    """The runtime refuses to create the container, and no container is there afterwards."""
    result = try_create(container)
    assert result.status > 0, f"should have been refused\n{result}"
    assert not exists(container), f"refused, but it exists\n{result}"
    return result


def assert_create_and_start_work(container: Container) -> None:
    container.create()
    container.start()


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for what another process does; fail the test if it takes very long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not in {PATIENCE_SECONDS} s: {what}"
        time.sleep(PAUSE_SECONDS)


def text(path: Path) -> str:
    """Return a file's text, "" if there is none."""
    return path.read_text() if path.exists() else ""


class MountEntry:
    """One line of mountinfo (proc_pid_mountinfo(5))."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split()
        self.destination = fields[4]
        self.options = fields[5].split(",")
        self.propagation = fields[6:]
        kind, self.source, *rest = right.split(" ")
        self.kind = kind
        self.filesystem_options = rest[0].split(",") if rest else []


def mounts_at(pid: int, destination: str) -> list[MountEntry]:
    """Return what is mounted at a path, as the process sees it, the topmost last."""
    entries = [MountEntry(line) for line in proc.mountinfo(pid)]
    return [entry for entry in entries if entry.destination == destination]


def mount_at(pid: int, destination: str) -> MountEntry:
    found = mounts_at(pid, destination)
    assert found, f"nothing is mounted at {destination}"
    return found[-1]
