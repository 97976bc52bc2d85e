# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices (config-linux.md, "Devices", "Default Devices") and the links of runtime-linux.md.

Nodes are made by mknod(2), or, where a user namespace forbids that, bound from the host.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from ocirt.errors import OcirtError
from ocirt.kernel.constants import AT_FDCWD
from ocirt.kernel.files import read_at
from ocirt.kernel.mounts import fd_path
from ocirt.parts.mounts import single
from ocirt.parts.rootpath import Make
from ocirt.parts.step import Context, Side, Step
from ocirt.spec.model import Config, Device

# config-linux.md, "Default Devices", with the kernel's numbers (Documentation/admin-guide/devices).
DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)

# runtime-linux.md, "Dev symbolic links".
_DESCRIPTORS = "/proc/self/fd"
_LINKS = (
    ("fd", _DESCRIPTORS),
    ("stdin", f"{_DESCRIPTORS}/0"),
    ("stdout", f"{_DESCRIPTORS}/1"),
    ("stderr", f"{_DESCRIPTORS}/2"),
)
# As runc has it.
_CORE = ("core", "/proc/kcore")

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


@dataclass(frozen=True, slots=True)
class Node:
    """A device node as it is to be: type and mode bits, numbers, owner in the container.

    mode_given: also a node that is there already gets the mode.
    """

    path: str
    kind: int
    mode: int
    device: int
    uid: int
    gid: int
    mode_given: bool = False


_DEFAULT_NODES = tuple(
    Node(path, stat.S_IFCHR, 0o666, os.makedev(major, minor), 0, 0)
    for path, major, minor in DEFAULT_DEVICES
)


def steps(config: Config, *, bind: bool) -> Iterator[Step]:
    """Yield the steps that furnish /dev, unless config.json binds a /dev of its own."""
    for entry in config.mounts:
        if (
            entry.type == "bind" or "bind" in entry.options or "rbind" in entry.options
        ) and os.path.normpath(entry.destination) == "/dev":
            return
    how = "bind from the host" if bind else "make"
    named = {os.path.normpath(d.path) for d in config.linux.devices}
    defaults = tuple(node for node in _DEFAULT_NODES if node.path not in named)
    yield Step(Side.INIT, f"{how} the default devices", "", MakeDevices(defaults, bind))
    for index, device in enumerate(config.linux.devices):
        yield Step(
            Side.INIT,
            f"{how} device {device.path}",
            f"/linux/devices/{index}",
            MakeDevices((_node(device),), bind),
        )
    yield Step(Side.INIT, "make the links in /dev", "", MakeLinks())


def _node(device: Device) -> Node:
    # Engines write st_mode whole; the type is in a field of its own.
    mode = 0o666 if device.file_mode is None else stat.S_IMODE(device.file_mode)
    numbers = os.makedev(device.major or 0, device.minor or 0)
    path = os.path.normpath("/" + device.path.lstrip("/"))
    given = device.file_mode is not None
    return Node(path, _TYPES[device.type], mode, numbers, device.uid or 0, device.gid or 0, given)


@dataclass(frozen=True, slots=True)
class MakeDevices:
    """Make device nodes, or bind them from the host; an existing other file is an error."""

    nodes: tuple[Node, ...]
    bind: bool

    def run(self, c: Context) -> None:
        old = os.umask(0)
        try:
            for parent, nodes in groupby(self.nodes, _parent):
                directory = c.root.make(parent or "/", Make.DIRECTORY)
                try:
                    self._make_in(c, directory, nodes)
                finally:
                    os.close(directory)
        finally:
            os.umask(old)

    def _make_in(self, c: Context, directory: int, nodes: Iterable[Node]) -> None:
        for node in nodes:
            bound = self.bind and node.kind != stat.S_IFIFO
            if bound or not _make(directory, node):
                _bind(c, node)


def _parent(node: Node) -> str:
    return node.path.rpartition("/")[0]


def _make(directory: int, node: Node) -> bool:
    """Make a node; False where the runtime lacks the privilege (CAP_MKNOD) for it."""
    name = node.path.rpartition("/")[2]
    try:
        os.mknod(name, node.kind | node.mode, node.device, dir_fd=directory)
    except FileExistsError:
        _adopt(directory, name, node)
    except PermissionError as e:
        if e.errno != errno.EPERM or node.kind == stat.S_IFIFO:
            raise PermissionError(e.errno, os.strerror(e.errno or 0), node.path) from None
        return False
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), node.path) from None
    if node.uid or node.gid:
        os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)
    return True


def _adopt(directory: int, name: str, node: Node) -> None:
    """Take a node that is there already, if it is the one that is wanted."""
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not _is_node(found, node):
            raise OcirtError(f"{node.path}: another file is already there, and isn't that device")
        if node.mode_given:
            os.chmod(fd_path(found), node.mode)
    finally:
        os.close(found)


def _is_node(fd: int, node: Node) -> bool:
    found = os.fstat(fd)
    same_numbers = node.kind == stat.S_IFIFO or found.st_rdev == node.device
    return stat.S_IFMT(found.st_mode) == node.kind and same_numbers


def _bind(c: Context, node: Node) -> None:
    with single(_on_the_host(node)) as (tree, bind_on):
        if not _is_node(tree, node):
            raise OcirtError(
                f"{node.path}: the host's file of that name isn't that device, and a user"
                " namespace allows no new device nodes"
            )
        target = c.root.make(node.path, Make.FILE, 0o666)
        try:
            bind_on(target)
        finally:
            os.close(target)


def _on_the_host(node: Node) -> str:
    """Return where the host has a node: at the same path, or where the kernel says."""
    try:
        if os.stat(node.path, follow_symlinks=False).st_rdev == node.device:
            return node.path
    except FileNotFoundError:
        pass
    try:
        numbers = f"{os.major(node.device)}:{os.minor(node.device)}"
        kind = "block" if node.kind == stat.S_IFBLK else "char"
        lines = read_at(AT_FDCWD, f"/sys/dev/{kind}/{numbers}/uevent").splitlines()
    except FileNotFoundError:
        return node.path
    names = [line.removeprefix("DEVNAME=") for line in lines if line.startswith("DEVNAME=")]
    return f"/dev/{names[0]}" if names else node.path


@dataclass(frozen=True, slots=True)
class MakeLinks:
    """Make /dev/fd, /dev/stdin ... where their targets exist, and /dev/ptmx."""

    def run(self, c: Context) -> None:
        links = [*_LINKS] if c.root.exists(_DESCRIPTORS) else []
        if c.root.exists(_CORE[1]):
            links.append(_CORE)
        ptmx = c.root.exists("/dev/pts/ptmx")
        if not links and not ptmx:
            return
        directory = c.root.make("/dev", Make.DIRECTORY)
        try:
            for name, target in links:
                _link(directory, name, target)
            if ptmx:
                # The kernel's own node would belong to the host's devpts.
                _remove(directory, "ptmx")
                _link(directory, "ptmx", "pts/ptmx")
        finally:
            os.close(directory)


def _link(directory: int, name: str, target: str) -> None:
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass
    except OSError as e:
        _unless_read_only(e, name)


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as e:
        _unless_read_only(e, name)


def _unless_read_only(error: OSError, name: str) -> None:
    """Accept a rootfs that is read-only and brings its own /dev."""
    if error.errno != errno.EROFS:
        raise OSError(error.errno, os.strerror(error.errno or 0), f"/dev/{name}") from None
