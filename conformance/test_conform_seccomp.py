# SPDX-License-Identifier: GPL-3.0-or-later
"""config-linux.md "Seccomp" and "The Container Process State"."""

from __future__ import annotations

import json
import os
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.probe import assert_create_refused, exists, try_create, wait_until
from conformance.requirement import Level, requirement
from tests.harness import Container
from tests.harness.container import PATIENCE_SECONDS

must = partial(requirement, "config-linux.md", "Seccomp", level=Level.MUST)
must_not = partial(requirement, "config-linux.md", "Seccomp", level=Level.MUST_NOT)
state = partial(requirement, "config-linux.md", "The Container Process State", level=Level.MUST)

ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}
# What a container asks an agent for: a call that nothing else in it makes.
NOTIFY = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
LIMIT_BYTES = 1 << 16


def set_profile(container: Container, **profile: Any) -> None:
    container.bundle.set("/linux/seccomp", ALLOW | profile)


@must(11, says="defaultErrnoRet with an action that has none is an error")
@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
@pytest.mark.right("only ERRNO and TRACE take a number; the sentence has no exception")
def test_default_errno(container: Container, action: str) -> None:
    set_profile(container, defaultAction=action, defaultErrnoRet=1)
    assert_create_refused(container)


@must(74, says="errnoRet with an action that has none is an error")
@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_LOG"])
@pytest.mark.right("only ERRNO and TRACE take a number; the sentence has no exception")
def test_errno(container: Container, action: str) -> None:
    rule = {"names": ["mkdir"], "action": action, "errnoRet": 1}
    set_profile(container, syscalls=[rule])
    assert_create_refused(container)


@must(60, says="names has an entry")
@pytest.mark.right('"Valid values": a list that must not be empty and is, is an error')
def test_no_names(container: Container) -> None:
    set_profile(container, syscalls=[{"names": [], "action": "SCMP_ACT_ERRNO"}])
    assert_create_refused(container)


@must_not(54, says="listenerMetadata without listenerPath is an error")
@pytest.mark.right('"Valid values": the field must not be set then')
def test_metadata_alone(container: Container) -> None:
    set_profile(container, listenerMetadata="x", syscalls=[NOTIFY])
    assert_create_refused(container)


class Agent:
    """A seccomp agent: takes connections as a runtime makes them, and keeps what was sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # One entry per connection; one entry of it per recvmsg(2): text, descriptors.
        self.connections: list[list[tuple[bytes, list[int]]]] = []
        self.closed = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            received: list[tuple[bytes, list[int]]] = []
            self.connections.append(received)
            connection.settimeout(PATIENCE_SECONDS)
            with connection:
                while True:
                    data, fds, _, _ = socket.recv_fds(connection, LIMIT_BYTES, 8)
                    if not data:
                        self.closed += 1
                        break
                    received.append((data, fds))

    def document(self) -> dict[str, Any]:
        """Return what the only connection brought."""
        (received,) = self.connections
        found: dict[str, Any] = json.loads(b"".join(data for data, _ in received))
        return found

    def close(self) -> None:
        # shutdown() wakes the thread, close() doesn't.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for received in self.connections:
            for _, fds in received:
                for fd in fds:
                    os.close(fd)


def listen(container: Container, path: Path) -> Agent:
    agent = Agent(path)
    set_profile(container, syscalls=[NOTIFY], listenerPath=str(path), listenerMetadata="meta data")
    return agent


def run_until_sent(container: Container, agent: Agent) -> None:
    container.create()
    container.start()
    wait_until(lambda: agent.closed > 0, "the state was sent")


@must(45, says="the runtime connects to an AF_UNIX stream socket")
@must(46, says="one state per connection")
@must_not(47, says="the connection isn't used again")
@must(47, says="the connection is closed after the state")
@state(2, says="the state is sent as JSON, descriptors by SCM_RIGHTS")
@state(4, says="descriptors are sent in the first call")
def test_listener(container: Container, directory: Path) -> None:
    agent = listen(container, directory / "agent")
    try:
        run_until_sent(container, agent)
        assert len(agent.connections) == agent.closed == 1
        sent = agent.document()
        descriptors = [fds for _, fds in agent.connections[0]]
        assert sent["fds"] == ["seccompFd"]
        assert len(descriptors[0]) == 1 and not any(descriptors[1:])
        assert os.readlink(f"/proc/self/fd/{descriptors[0][0]}") == "anon_inode:seccomp notify"
        assert sent["metadata"] == "meta data"
        assert sent["ociVersion"].count(".") >= 2
        assert sent["pid"] == container.pid
        assert sent["state"]["id"] == container.id
        assert sent["state"]["bundle"] == str(container.bundle.directory)
    finally:
        agent.close()


@must(48, says="if the state can't be sent, it is an error")
def test_listener_away(container: Container, directory: Path) -> None:
    set_profile(container, syscalls=[NOTIFY], listenerPath=str(directory / "nobody"))
    result = try_create(container)
    # When the filter is loaded is the runtime's choice: at create or at start.
    if result.status == 0 and container.runtime.call("start", container.id).status == 0:
        wait_until(
            lambda: not exists(container) or container.status == "stopped",
            "the program doesn't run",
        )
    # It was the agent that was missing, nothing else.
    container.runtime.call("delete", "--force", container.id)
    agent = listen(container, directory / "agent")
    try:
        run_until_sent(container, agent)
    finally:
        agent.close()
