# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices (config-linux.md, "Devices", "Default Devices") and the links of runtime-linux.md.

Nodes are made by mknod(2), or, where a user namespace forbids that, bound from the host.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

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

# runtime-linux.md, "Dev symbolic links"; /dev/core as runc has it.
_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
)

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


def steps(config: Config, *, bind: bool) -> Iterator[Step]:
    """Yield the steps that furnish /dev, unless config.json binds a /dev of its own."""
    for entry in config.mounts:
        if os.path.normpath(entry.destination) == "/dev" and (
            entry.type == "bind" or "bind" in entry.options or "rbind" in entry.options
        ):
            return
    how = "bind from the host" if bind else "make"
    named = {os.path.normpath(d.path) for d in config.linux.devices}
    defaults = tuple(
        Node(path, stat.S_IFCHR, 0o666, os.makedev(major, minor), 0, 0)
        for path, major, minor in DEFAULT_DEVICES
        if path not in named
    )
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
            for node in self.nodes:
                bound = self.bind and node.kind != stat.S_IFIFO
                if bound or not _make(c, node):
                    _bind(c, node)
        finally:
            os.umask(old)


def _make(c: Context, node: Node) -> bool:
    """Make a node; False where the runtime lacks the privilege (CAP_MKNOD) for it."""
    directory, name = c.root.parent(node.path)
    try:
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
    finally:
        os.close(directory)
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
        for path, target in _LINKS:
            if c.root.exists(os.path.dirname(target)) and (
                target != "/proc/kcore" or c.root.exists(target)
            ):
                _link(c, path, target, replace=False)
        # The kernel's own node would belong to the host's devpts.
        if c.root.exists("/dev/pts/ptmx"):
            _link(c, "/dev/ptmx", "pts/ptmx", replace=True)


def _link(c: Context, path: str, target: str, *, replace: bool) -> None:
    directory, name = c.root.parent(path)
    try:
        if replace:
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass
    except OSError as e:
        # A rootfs that is read-only and brings its own /dev.
        if e.errno != errno.EROFS:
            raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
    finally:
        os.close(directory)
