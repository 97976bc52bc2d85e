# SPDX-License-Identifier: GPL-3.0-or-later
"""A seccomp agent: takes listeners over a unix socket and answers notifications.

config-linux.md, "The Container Process State"; seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import json
import os
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60

_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE, _SEND, _ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


@dataclass(frozen=True, slots=True)
class Notification:
    """A system call that waits for an answer."""

    id: int
    pid: int
    number: int
    arch: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the system call returns; error is positive; proceed lets the kernel do it."""

    value: int = 0
    error: int = 0
    proceed: bool = False


Decide = Callable[[Notification], Answer | None]


class Listener:
    """A filter's listener."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def receive(self) -> Notification | None:
        """Return the next notification; None when nobody has the filter any more."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        ready = poll.poll(LIMIT_SECONDS * 1000)
        assert ready, "no notification"
        if not ready[0][1] & select.POLLIN:
            return None
        data = bytearray(_NOTIFICATION.size)
        try:
            ioctl(self.fd, _RECEIVE, data)
        except OSError as e:
            # What asked has gone.
            if e.errno == errno.ENOENT:
                return self.receive()
            raise
        id_, pid, _, number, arch, _, *args = _NOTIFICATION.unpack(data)
        return Notification(id_, pid, number, arch, tuple(args))

    def still_waits(self, notification: Notification) -> bool:
        """Whether the call of a notification still waits for an answer."""
        try:
            ioctl(self.fd, _ID_VALID, struct.pack("=Q", notification.id))
        except OSError as e:
            assert e.errno == errno.ENOENT
            return False
        return True

    def answer(self, notification: Notification, answer: Answer) -> None:
        flags = _CONTINUE if answer.proceed else 0
        data = _RESPONSE.pack(notification.id, answer.value, -answer.error, flags)
        ioctl(self.fd, _SEND, bytearray(data))

    def close(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Given:
    """What came over one connection: the container process state and the listener."""

    state: dict[str, Any]
    listener: Listener
    notifications: list[Notification]


class Agent:
    """Listens at path. With decide, answers; else a test takes the listener and does it."""

    def __init__(self, path: Path, decide: Decide | None = None) -> None:
        self.path = path
        self.decide = decide
        self._given: queue.Queue[Given] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._listeners: list[Listener] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._run(self._accept)

    def _run(self, function: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            with connection:
                text, descriptors = _receive_all(connection)
            listener = Listener(descriptors[0])
            assert len(descriptors) == 1
            self._listeners.append(listener)
            given = Given(json.loads(text), listener, [])
            if self.decide is not None:
                self._run(self._serve, given, self.decide)
            self._given.put(given)

    def _serve(self, given: Given, decide: Decide) -> None:
        while (notification := given.listener.receive()) is not None:
            given.notifications.append(notification)
            answer = decide(notification)
            if answer is not None:
                given.listener.answer(notification, answer)

    def given(self) -> Given:
        """Return what came over the next connection."""
        return self._given.get(timeout=LIMIT_SECONDS)

    def empty(self) -> bool:
        """Whether nothing came that wasn't taken by given()."""
        return self._given.empty()

    def close(self) -> None:
        """Stop; call it when the containers have ended."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.path.unlink()
        for thread in self._threads:
            thread.join(LIMIT_SECONDS)
            assert not thread.is_alive()
        for listener in self._listeners:
            listener.close()


def _receive_all(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Read until the runtime closes the connection."""
    text, descriptors = b"", []
    while True:
        words, fds, _, _ = socket.recv_fds(connection, 1 << 16, 8)
        descriptors += fds
        if not words:
            return text, descriptors
        text += words
