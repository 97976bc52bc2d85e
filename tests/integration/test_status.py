# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container's status is read from (runtime.md, "State"), and who may not read it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.harness import Container, proc

LIMIT_SECONDS = 60
PAUSE = "34"  # pause(2), for call.c
# Who traces others may look at what they execute (proc(5)).
WITHOUT_PTRACE = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]


def status_seen(container: Container) -> str:
    """Return the status that a caller without the right to trace is told."""
    argv = [*WITHOUT_PTRACE, container.runtime.executable, "--root", str(container.runtime.root)]
    ended = subprocess.run(
        [*argv, "state", container.id],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    )
    return str(json.loads(ended.stdout)["status"])


def switches(pid: int) -> int:
    """Return how often a process has gone to sleep."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))


def test_it_is_seen_without_the_right_to_trace(container: Container) -> None:
    container.create()
    looking = ["readlink", f"/proc/{container.pid}/exe"]
    refused = subprocess.run([*WITHOUT_PTRACE, *looking], capture_output=True, check=False)
    assert refused.returncode or "ocirt" not in container.runtime.version()
    assert status_seen(container) == "created"
    container.start()
    assert status_seen(container) == "running"
    container.kill("KILL")
    container.wait_for("stopped")
    assert status_seen(container) == "stopped"


def test_looking_does_not_wake_who_waits(container: Container) -> None:
    container.create()
    pid = container.pid
    waiting = Path(f"/proc/{pid}/stat")
    proc.wait_until(lambda: waiting.read_text().rpartition(")")[2].split()[0] == "S")
    before = switches(pid)
    for _ in range(3):
        assert container.status == "created"
        assert [c["status"] for c in container.runtime.list()] == ["created"]
    assert switches(pid) == before


def test_no_program_can_seem_to_wait(container: Container, call_program: Path) -> None:
    """The name of what ocirt's created containers execute, where a tmpfs has it, is no proof."""
    os.link(call_program, container.bundle.rootfs / "ocirt-stub")
    container.command("/ocirt-stub", PAUSE)
    container.create()
    assert container.status == "created"
    container.start()
    assert os.readlink(f"/proc/{container.pid}/exe") == "/ocirt-stub"
    assert container.status == "running"


def test_what_a_killed_start_leaves_deletes_nothing(
    container: Container, call_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the socket left over such a program seems to wait: who deletes it has to ask."""
    monkeypatch.setenv("OCIRT_DELETE_CREATED", "1")
    os.link(call_program, container.bundle.rootfs / "ocirt-stub")
    container.command("/ocirt-stub", PAUSE)
    container.create()
    container.start()
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(container.runtime.root / container.id / "start.sock"))
    assert container.refused("delete")
    assert proc.is_running(container.pid)
