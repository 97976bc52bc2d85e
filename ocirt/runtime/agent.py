# SPDX-License-Identifier: GPL-3.0-or-later
"""The seccomp agent: who answers for the system calls of SCMP_ACT_NOTIFY, reached by listenerPath.

The stub loads the filter and hands its listener over (seccomp(2), "user notification"); whoever
started it passes it on, in the host's namespaces, with the container process state
(config-linux.md, "The Container Process State"), and lets the stub go on. The connection is made
before anything runs, so that an agent that isn't there changes nothing.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ocirt.errors import OcirtError, describe
from ocirt.kernel import unix
from ocirt.kernel.stublist import GO_ON, Report, decode_report
from ocirt.spec.features import VERSION_MAX
from ocirt.spec.model import Seccomp

_POINTER = "/linux/seccomp/listenerPath"


@dataclass(frozen=True, slots=True)
class Agent:
    """A connection to the agent, for one listener. state is the container's (runtime.md)."""

    connection: socket.socket
    metadata: str | None
    state: Mapping[str, object]

    def give(self, listener: int, pid: int) -> None:
        """Send a listener and close the connection, which ends what is sent. Raises OSError.

        pid is the process that loaded the filter. Its execve may be the first thing that the agent
        is asked about, so that nothing may wait for the program.
        """
        document: dict[str, object] = {
            "ociVersion": VERSION_MAX,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": self.state,
        }
        if self.metadata:
            document["metadata"] = self.metadata
        text = json.dumps(document).encode()
        sent = socket.send_fds(self.connection, [text], [listener], socket.MSG_NOSIGNAL)
        # What doesn't fit into one message follows without descriptors.
        self.connection.sendall(text[sent:], socket.MSG_NOSIGNAL)
        self.connection.close()


@contextmanager
def connected(profile: Seccomp | None, state: Mapping[str, object]) -> Iterator[Agent | None]:
    """Connect to the agent that a profile asks; None if it asks none. Raises OcirtError."""
    if profile is None or not profile.notifies or profile.listener_path is None:
        yield None
        return
    with _connect(profile.listener_path) as connection:
        yield Agent(connection, profile.listener_metadata, state)


def _connect(path: str) -> socket.socket:
    try:
        return unix.connect(path)
    except OSError as e:
        raise OcirtError(f"connect to the seccomp agent [{_POINTER}]: {describe(e)}") from None


def hear(channel: socket.socket, agent: Agent | None, pid: int) -> Report:
    """Read what the stub says until the program runs, or can't, and pass its listener on.

    pid is the stub's. Raises OcirtError if the agent doesn't take it; the stub then ends, when the
    channel is closed.
    """
    answer = b""
    while True:
        try:
            chunk, descriptors, _, _ = socket.recv_fds(channel, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            break
        if not chunk:
            break
        answer += chunk
        if descriptors and agent is not None:
            _pass_on(agent, descriptors[0], pid)
            channel.sendall(GO_ON, socket.MSG_NOSIGNAL)
    return decode_report(answer)


def _pass_on(agent: Agent, listener: int, pid: int) -> None:
    try:
        agent.give(listener, pid)
    except OSError as e:
        raise OcirtError(f"send to the seccomp agent [{_POINTER}]: {describe(e)}") from None
    finally:
        os.close(listener)
