# SPDX-License-Identifier: GPL-3.0-or-later
"""Service managers: sockets they hand over (LISTEN_FDS), and the news that a service is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Container
from tests.harness.container import PATIENCE_SECONDS


class Manager:
    """What listens on NOTIFY_SOCKET; it answers barriers as systemd does, by closing them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE_SECONDS)

    def messages(self) -> list[str]:
        """Everything up to the barrier, or, from who sends none, until it says no more."""
        lines: list[str] = []
        try:
            while "BARRIER=1" not in lines:
                words, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1)
                lines += words.decode().split()
                for fd in descriptors:
                    os.close(fd)
                if lines[-1].startswith("MAINPID="):
                    self._socket.settimeout(0.5)
        except TimeoutError:
            pass
        return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    it = Manager(directory / "manager.sock")
    monkeypatch.setenv("NOTIFY_SOCKET", str(it.path))
    yield it
    it.close()


def say(container: Container, words: str) -> None:
    """Say what a program of the container's would say, on the socket that it has."""
    path = f"/proc/{container.pid}/root/run/notify/notify.sock"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(path)
        sock.send(words.encode())


@contextmanager
def in_background(container: Container, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    runtime = container.runtime
    words = [runtime.executable, "--root", str(runtime.root), *args, container.id]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def test_start_waits_until_the_program_is_ready(container: Container, manager: Manager) -> None:
    container.shell("echo $NOTIFY_SOCKET >/tmp/told; exec sleep 1000")
    container.create()
    with in_background(container, "start") as start:
        container.wait_for("running")
        time.sleep(0.05)
        assert start.poll() is None
        say(container, "STATUS=soon\n")
        say(container, "READY=1\nMAINPID=1\n")
        assert manager.messages()[:2] == ["READY=1", f"MAINPID={container.pid}"]
        assert start.wait(PATIENCE_SECONDS) == 0
    told = (container.bundle.rootfs / "tmp/told").read_text()
    assert told == "/run/notify/notify.sock\n"


def test_a_program_that_ends_before_it_is_ready(container: Container, manager: Manager) -> None:
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")


@pytest.mark.peer_fails("runc", "in the foreground its READY=1 comes with the runtime's pid first")
def test_run_in_the_foreground(container: Container, manager: Manager) -> None:
    container.bundle.save()
    bundle = ("--bundle", str(container.bundle.directory))
    with in_background(container, "run", *bundle) as run:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while container.runtime.call("state", container.id).status:
            assert time.monotonic() < deadline
        container.wait_for("running")
        say(container, "READY=1")
        assert manager.messages() == ["READY=1", f"MAINPID={run.pid}", "BARRIER=1"]
        container.kill("KILL")
        assert run.wait(PATIENCE_SECONDS) == 128 + 9


@pytest.mark.peer_fails("runc", "gives it another all the same")
def test_one_that_has_its_own_socket(container: Container, manager: Manager) -> None:
    """An engine that wrote NOTIFY_SOCKET into config.json deals with it itself."""
    container.bundle.set("/process/env/-", "NOTIFY_SOCKET=/engine/notify")
    assert container.inside("echo $NOTIFY_SOCKET; grep /run /proc/mounts; true") == "/engine/notify"


def activate(container: Container, script: str, count: str, pid: str = "$$") -> str:
    """Run a container as a service manager would, with two descriptors; return its output."""
    container.shell(script)
    container.bundle.save()
    words = [container.runtime.executable, "--root", str(container.runtime.root), "run"]
    words += ["--bundle", str(container.bundle.directory), container.id]
    shell = f'export LISTEN_FDS={count} LISTEN_PID={pid} LISTEN_FDNAMES=a:b; exec "$@" 3>&1 4>&1'
    ended = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_listen_fds(container: Container) -> None:
    script = "echo three >&3; echo four >&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd"
    assert activate(container, script, "2").split()[:4] == ["three", "four", "2", "1"]


def test_listen_fds_of_another_process(container: Container) -> None:
    script = "echo ${LISTEN_FDS-none}; test ! -e /proc/self/fd/3"
    assert activate(container, script, "2", pid="1") == "none\n"


@pytest.mark.peer_fails("runc", "takes it for no descriptor at all")
def test_listen_fds_that_are_none(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "x")
    container.bundle.save()
    words = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "LISTEN_FDS" in words
