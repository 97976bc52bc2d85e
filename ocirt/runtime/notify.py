# SPDX-License-Identifier: GPL-3.0-or-later
"""Readiness: NOTIFY_SOCKET of the service manager, for a program in a container (sd_notify(3)).

The program gets a socket of the container's own in /run/notify. What it says about being ready goes
on to the service manager, and nothing else: a container must not speak for the host's service.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from dataclasses import dataclass, replace
from types import TracebackType

from ocirt.runtime.pids import Process
from ocirt.runtime.store import Entry
from ocirt.spec.model import Config, Mount

_log = logging.getLogger("ocirt")

_DIRECTORY = "notify"
_NAME = "notify.sock"
_INSIDE = "/run/notify"
_LONGEST = 4096
# As long as systemd's own sd_notify_barrier(3) callers wait, and runc.
_BARRIER_MS = 30_000


def with_notify_socket(config: Config, directory: str) -> Config:
    """Return the config with the place of the container's socket; directory is the container's.

    One that its config.json already gives it stays.
    """
    process = config.process
    if process is None or any(e.startswith("NOTIFY_SOCKET=") for e in process.env):
        return config
    options = ("bind", "nosuid", "noexec", "nodev", "ro")
    place = Mount(_INSIDE, os.path.join(directory, _DIRECTORY), "bind", options)
    env = (*process.env, f"NOTIFY_SOCKET={_INSIDE}/{_NAME}")
    return replace(config, mounts=(*config.mounts, place), process=replace(process, env=env))


def make_directory(entry: Entry) -> None:
    """Make the directory that the mount shows. Raises OSError."""
    os.mkdir(_DIRECTORY, 0o755, dir_fd=entry.fd)


@dataclass(slots=True)
class Notify:
    """The container's socket, listened to until the program is ready; manager's is the host's."""

    manager: str
    socket: socket.socket
    ready: bool = False

    def __enter__(self) -> Notify:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self.socket.fileno()

    def hear(self, main_pid: int) -> None:
        """Read one message; if it says "ready", tell the service manager, and who its service is.

        Never fails: a service manager that is gone must not end a container.
        """
        try:
            message = self.socket.recv(_LONGEST)
        except OSError:
            return
        for line in message.split(b"\n"):
            if line.startswith(b"READY="):
                self.ready = True
                try:
                    _tell(self.manager, line, main_pid)
                except OSError as e:
                    _log.warning("NOTIFY_SOCKET %s: %s", self.manager, e.strerror)
                return

    def wait(self, process: Process) -> None:
        """Wait until the program is ready, or its process has ended."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(process.fd, select.POLLIN)
        while not self.ready:
            happened = dict(poll.poll())
            if self.fileno() in happened:
                self.hear(process.pid)
            else:
                return


def listen(entry: Entry, manager: str | None) -> Notify | None:
    """Listen on the socket of a container that was made with one; None for others."""
    if not manager:
        return None
    try:
        place = os.open(_DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=entry.fd)
    except FileNotFoundError:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # An earlier start may have died.
        if _NAME in os.listdir(f"/proc/self/fd/{place}"):
            os.unlink(_NAME, dir_fd=place)
        sock.bind(f"/proc/self/fd/{place}/{_NAME}")
        # Any user of the container's may be the program's.
        os.chmod(_NAME, 0o777, dir_fd=place)
    except OSError:
        sock.close()
        raise
    finally:
        os.close(place)
    return Notify(manager, sock)


def _tell(manager: str, words: bytes, main_pid: int) -> None:
    address = "\0" + manager[1:] if manager.startswith("@") else manager
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.send(words + b"\n")
        sock.send(b"MAINPID=%d\n" % main_pid)
        # sd_notify_barrier(3): when the other end is closed, all that came before was dealt with;
        # only then may we, whom it knows as the sender, be gone.
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(sock, [b"BARRIER=1"], [theirs])
            os.close(theirs)
            poll = select.poll()
            poll.register(ours, 0)
            poll.poll(_BARRIER_MS)
        finally:
            os.close(ours)
