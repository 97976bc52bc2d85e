# SPDX-License-Identifier: GPL-3.0-or-later
"""Terminals as people and engines have them: a pty with a program in it, and a console socket."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path

from tests.harness.runtime import LIMIT_SECONDS

_WINSIZE = struct.Struct("=HHHH")


def set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, _WINSIZE.pack(rows, columns, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    rows, columns, _, _ = _WINSIZE.unpack(fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


class Screen:
    """The master of a terminal: what is typed, and what was shown so far."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.shown = ""
        self._read = 0

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until text is shown after what was waited for last; return what came with it."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while (place := self.shown.find(text, self._read)) < 0:
            assert self._more(deadline), f"{text!r} was never shown:\n{self.shown}"
        before, self._read = self._read, place + len(text)
        return self.shown[before : self._read]

    def rest(self) -> str:
        """Read to the end, when nobody has the other end open any more."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self._more(deadline):
            pass
        before, self._read = self._read, len(self.shown)
        return self.shown[before:]

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(self.master, 4096) if ready else b""
        except OSError:
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def close(self) -> None:
        os.close(self.master)


class Session(Screen):
    """A program started in a new terminal, as by somebody who sits before it."""

    def __init__(self, argv: Sequence[str], size: tuple[int, int] = (24, 80)) -> None:
        self.pid, master = pty.fork()
        if self.pid == 0:
            try:
                set_size(0, *size)
                os.execv(argv[0], list(argv))
            finally:
                os._exit(127)
        super().__init__(master)

    def status(self) -> int:
        """Wait for its end; the exit status, negative if a signal ended it."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it didn't end:\n{self.shown}")


class ConsoleSocket:
    """What an engine listens on to get a container's terminal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.settimeout(LIMIT_SECONDS)

    def descriptor(self) -> tuple[bytes, int]:
        """Return the words and the descriptor that come with the next connection."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(LIMIT_SECONDS)
            words, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        assert len(descriptors) == 1, "no descriptor came"
        return words, descriptors[0]

    def screen(self) -> Screen:
        return Screen(self.descriptor()[1])

    def close(self) -> None:
        self._socket.close()
