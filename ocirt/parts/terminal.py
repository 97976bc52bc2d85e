# SPDX-License-Identifier: GPL-3.0-or-later
"""The terminal (config.md, "process": terminal, consoleSize): a pseudoterminal of the container's.

It is made in the container's own devpts. The master goes over a socket to whoever shows it to
people: an engine's console socket, or `run` itself. Nothing of it is found by a path that could be
exchanged meanwhile (CVE-2025-52565): the multiplexer is checked before it is opened, and the other
end comes from the master itself.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from ocirt.errors import OcirtError, describe
from ocirt.kernel import terminal as tty
from ocirt.kernel import unix
from ocirt.kernel.constants import AT_EMPTY_PATH, DEVPTS_SUPER_MAGIC, OPEN_TREE_CLONE
from ocirt.kernel.files import fstatfs_type
from ocirt.kernel.mounts import move_mount, open_tree
from ocirt.parts.rootpath import Root
from ocirt.parts.step import Context, Side, Step
from ocirt.spec.model import Process

_MULTIPLEXER = "/dev/pts/ptmx"
_MULTIPLEXER_DEVICE = os.makedev(5, 2)
_CONSOLE = "/dev/console"
# Documentation/admin-guide/devices.txt: the ends that programs use.
_FIRST_PEER, _LAST_PEER = 136, 143
# What goes with the master, in one message: a name, as runc sends it.
_NAME = b"/dev/ptmx"


def connect_console(path: str) -> socket.socket:
    """Connect to a console socket. Raises OcirtError."""
    try:
        return unix.connect(path)
    except OSError as e:
        raise OcirtError(f"--console-socket: {describe(e)}") from None


def send_master(console: socket.socket, master: int) -> None:
    """Hand a master over. Raises OSError."""
    unix.send_descriptor(console, _NAME, master)


def receive_master(console: socket.socket) -> int:
    """Return the master that the container's side sent, -1 if there came none.

    Raises OcirtError for anything that isn't one.
    """
    _, descriptors, _, _ = socket.recv_fds(console, 4096, 1)
    if not descriptors:
        return -1
    _check_multiplexer(descriptors[0])
    return descriptors[0]


def open_pair(root: Root, proc: int) -> tuple[int, int]:
    """Return both ends of a new terminal of the devpts at a root's /dev/pts.

    Raises OcirtError if what is there isn't a devpts.
    """
    try:
        place = root.open(_MULTIPLEXER)
    except FileNotFoundError:
        raise OcirtError(
            f"a terminal needs {_MULTIPLEXER}: add a mount of type devpts at /dev/pts"
        ) from None
    try:
        _check_multiplexer(place)
        # The descriptor's own name in a verified procfs: no path of the container's.
        master = os.open(f"self/fd/{place}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=proc)
    finally:
        os.close(place)
    tty.unlock(master)
    peer = tty.open_peer(master)
    if not _FIRST_PEER <= os.major(os.fstat(peer).st_rdev) <= _LAST_PEER:
        raise OcirtError(f"{_MULTIPLEXER} gave a terminal that isn't one")
    return master, peer


def _check_multiplexer(fd: int) -> None:
    found = os.fstat(fd)
    if (
        not stat.S_ISCHR(found.st_mode)
        or found.st_rdev != _MULTIPLEXER_DEVICE
        or fstatfs_type(fd) != DEVPTS_SUPER_MAGIC
    ):
        raise OcirtError(f"{_MULTIPLEXER} isn't that of a devpts; it can't make a terminal")


def steps(process: Process) -> Iterator[Step]:
    """Yield the steps that make the terminal and show it as /dev/console."""
    size = process.console_size
    wanted = tty.Size(size.height, size.width) if size is not None else None
    pointer = "/process/terminal"
    yield Step(Side.INIT, "make a terminal, and send its master", pointer, MakeTerminal(wanted))
    yield Step(Side.INIT, f"bind it to {_CONSOLE}", pointer, BindConsole())


@dataclass(frozen=True, slots=True)
class ConnectConsole:
    """Connect while nothing is made yet: an engine that doesn't listen is noticed at once."""

    path: str

    def run(self, c: Context) -> None:
        c.console = connect_console(self.path).detach()


@dataclass(frozen=True, slots=True)
class MakeTerminal:
    """Make the terminal in the container's devpts and send the master away."""

    size: tty.Size | None

    def run(self, c: Context) -> None:
        master, c.terminal = open_pair(c.root, c.proc)
        if self.size is not None:
            tty.set_size(master, self.size)
        with socket.socket(fileno=c.console) as console:
            send_master(console, master)
        c.console = -1
        os.close(master)


@dataclass(frozen=True, slots=True)
class BindConsole:
    """Bind the terminal over /dev/console, which is never a link to elsewhere (CVE-2026-88264)."""

    def run(self, c: Context) -> None:
        directory, name = c.root.parent(_CONSOLE)
        try:
            target = _own_file(directory, name)
        finally:
            os.close(directory)
        tree = open_tree(c.terminal, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
        try:
            move_mount(tree, target)
        finally:
            os.close(tree)
            os.close(target)


def _own_file(directory: int, name: str) -> int:
    """Return an O_PATH descriptor of a file that isn't a link, made if missing."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(
            os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o620, dir_fd=directory)
        )
    except FileExistsError:
        pass
    fd = os.open(name, flags | os.O_PATH, dir_fd=directory)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, "is a symbolic link", _CONSOLE)
    return fd


@dataclass(frozen=True, slots=True)
class UseTerminal:
    """Make the terminal stdio, and the session's controlling terminal."""

    def run(self, c: Context) -> None:
        for fd in (0, 1, 2):
            os.dup2(c.terminal, fd)
        os.close(c.terminal)
        c.terminal = -1
        tty.make_controlling(0)
