# SPDX-License-Identifier: GPL-3.0-or-later
"""ctr's everyday operations."""

from __future__ import annotations

import time

from tests.engines.containerd import Containerd
from tests.harness.container import PATIENCE_SECONDS


def ended(containerd: Containerd, container: str) -> None:
    """Wait until a task has stopped."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "STOPPED" not in containerd.call("tasks", "ls").checked().stdout:
        assert time.monotonic() < deadline, f"{container} still runs"
        time.sleep(0.05)


def test_run(containerd: Containerd) -> None:
    script = "echo out; echo err >&2; exit 7"
    result = containerd.run("--rm", "c1", "sh", "-c", script)
    assert (result.status, result.stdout) == (7, "out\n"), str(result)
    assert "err\n" in result.stderr


def test_what_cant_be_run(containerd: Containerd) -> None:
    result = containerd.run("--rm", "c2", "/no/such")
    assert result.status != 0
    assert "no such file or directory" in result.stderr


def test_at_a_terminal(containerd: Containerd) -> None:
    session = containerd.at_terminal("run", "--rm", "-t", "c3", "sh", "-c", "tty; read x; exit $x")
    session.wait_for("/dev/pts/0")
    session.type("5\n")
    session.rest()
    assert session.status() == 5
    session.close()


def test_in_the_background(containerd: Containerd) -> None:
    """run -d, exec, exec -t, kill, rm."""
    containerd.run("--detach", "c4", "sleep", "1000").checked()
    execute = ("tasks", "exec", "--exec-id")
    result = containerd.call(*execute, "e1", "--cwd", "/tmp", "c4", "sh", "-c", "pwd; exit 9")
    assert (result.status, result.stdout) == (9, "/tmp\n"), str(result)
    result = containerd.call(*execute, "e2", "c4", "nope")
    assert result.status != 0 and "executable file not found in $PATH" in result.stderr
    words = ("--exec-id", "e3", "-t", "c4", "sh", "-c", "tty; read x; exit $x")
    session = containerd.at_terminal("tasks exec", *words)
    session.wait_for("/dev/pts/")
    session.type("4\n")
    session.rest()
    assert session.status() == 4
    session.close()
    containerd.call("tasks", "kill", "--signal", "SIGKILL", "c4").checked()
    ended(containerd, "c4")
    containerd.call("tasks", "rm", "c4")
    containerd.call("containers", "rm", "c4").checked()


def test_many_execs(containerd: Containerd) -> None:
    containerd.run("--detach", "c5", "sleep", "1000").checked()
    for number in range(10):
        words = ("tasks", "exec", "--exec-id", f"n{number}", "c5", "sh", "-c", f"exit {number}")
        assert containerd.call(*words).status == number
    containerd.call("tasks", "rm", "--force", "c5")
    containerd.call("containers", "rm", "c5").checked()
