# SPDX-License-Identifier: GPL-3.0-or-later
"""The root filesystem (config.md, "Root"): made a mount of its own, entered, made read-only."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.files import open_procfs, read_at
from ocirt.kernel.mounts import (
    fd_path,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    pivot_root,
    set_propagation,
    umount2,
)
from ocirt.kernel.process import chroot
from ocirt.parts.mount_attributes import make_read_only
from ocirt.parts.rootpath import Root
from ocirt.parts.step import Context, Undo, UndoKind

# config-linux.md, "Rootfs Mount Propagation"; the r-forms are runc's.
PROPAGATION = {
    "private": k.MS_PRIVATE,
    "rprivate": k.MS_PRIVATE | k.MS_REC,
    "shared": k.MS_SHARED,
    "rshared": k.MS_SHARED | k.MS_REC,
    "slave": k.MS_SLAVE,
    "rslave": k.MS_SLAVE | k.MS_REC,
    "unbindable": k.MS_UNBINDABLE,
    "runbindable": k.MS_UNBINDABLE | k.MS_REC,
}


@dataclass(frozen=True, slots=True)
class CheckRootfs:
    """See that the root is a directory, before anything is made for it."""

    def run(self, c: Context) -> None:
        try:
            found = os.lstat(c.rootfs)
        except FileNotFoundError:
            raise OcirtError(
                f"{c.rootfs}: no such file or directory; root.path must name an existing directory"
                " (a relative one starts at the bundle)"
            ) from None
        if not stat.S_ISDIR(found.st_mode):
            raise OcirtError(f"{c.rootfs}: isn't a directory (a symbolic link won't do)")


@dataclass(frozen=True, slots=True)
class PrivateMounts:
    """Cut the new mount namespace off from the host's: nothing mounted here may appear there.

    With a shared rootfsPropagation the rest of the tree stays connected, since that is what was
    asked for: bind mounts of the container may then propagate to the host.
    """

    propagation: str | None

    def run(self, c: Context) -> None:
        c.proc = open_procfs()
        if self.propagation in ("shared", "rshared"):
            return
        set_propagation("/", k.MS_SLAVE | k.MS_REC)


@dataclass(frozen=True, slots=True)
class BindRootfs:
    """Make the rootfs a mount of its own, as pivot_root(2) needs, and open it.

    own_namespace: the mount namespace is the container's; in a joined one nothing is changed but
    the new mount itself.
    """

    own_namespace: bool

    def run(self, c: Context) -> None:
        if c.proc < 0:
            c.proc = open_procfs()
        fd = _open_directory(c.rootfs)
        if self.own_namespace:
            _make_parent_private(c.rootfs)
        mount(fd_path(fd), fd_path(fd), "", k.MS_BIND | k.MS_REC)
        # The descriptor means the directory under the mount just made: open the one on top.
        top = _open_directory(c.rootfs)
        below, above = os.fstat(fd), os.fstat(top)
        os.close(fd)
        if (below.st_dev, below.st_ino) != (above.st_dev, above.st_ino):
            raise OcirtError(f"{c.rootfs}: was replaced while the container was being created")
        c.root = Root(top)


@dataclass(frozen=True, slots=True)
class BindInHost:
    """For a container without a mount namespace of its own: its mounts are the host's.

    All lie below this one, which is private, so that one unmount takes them back.
    """

    def undo(self, c: Context) -> Undo:
        """Make the mount, detached: its id says later which one is ours."""
        flags = k.OPEN_TREE_CLONE | k.AT_RECURSIVE | k.AT_SYMLINK_NOFOLLOW
        c.host_rootfs = open_tree(k.AT_FDCWD, c.rootfs, flags)
        return Undo(UndoKind.MOUNT, {"path": c.rootfs, "id": mount_id(c.host_rootfs)})

    def run(self, c: Context) -> None:
        below = _open_directory(c.rootfs)
        try:
            move_mount(c.host_rootfs, below)
            # Where it lies on a shared mount it is one, too, from now on.
            mount_setattr(c.host_rootfs, k.AT_RECURSIVE, propagation=k.MS_PRIVATE)
        finally:
            os.close(below)
            os.close(c.host_rootfs)


def mount_id(fd: int) -> int:
    """Return the id of the mount that a descriptor is on (proc_pid_fdinfo(5))."""
    text = read_at(k.AT_FDCWD, f"/proc/self/fdinfo/{fd}")
    return int(text.partition("mnt_id:")[2].split()[0])


def unmount_from_host(undo: Undo) -> None:
    """Take BindInHost back, with all that was mounted below. Raises OSError or OcirtError."""
    path, wanted = undo.data["path"], undo.data["id"]
    try:
        fd = _open_directory(path)
    except FileNotFoundError:
        return
    try:
        if mount_id(fd) == wanted:
            umount2(fd_path(fd), k.MNT_DETACH)
            return
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        if any(line.startswith(f"{wanted} ") for line in mounts):
            raise OcirtError(f"{path}: something else is mounted on the container's rootfs")


@dataclass(frozen=True, slots=True)
class OpenRootfs:
    """Open what BindInHost mounted."""

    def run(self, c: Context) -> None:
        c.proc = open_procfs()
        c.root = Root(_open_directory(c.rootfs))


def _open_directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _make_parent_private(rootfs: str) -> None:
    """Make the mount that the rootfs lies on private: pivot_root(2) refuses a shared one."""
    path = rootfs
    while True:
        try:
            set_propagation(path, k.MS_PRIVATE)
        except OSError as e:
            # EINVAL: not a mount point; the one above is then asked.
            if e.errno != errno.EINVAL or path == "/":
                raise
            path = os.path.dirname(path)
        else:
            return


@dataclass(frozen=True, slots=True)
class ReadOnlyRoot:
    """root.readonly: after everything in the rootfs has been made."""

    def run(self, c: Context) -> None:
        make_read_only(c.root.fd, recursive=False)


@dataclass(frozen=True, slots=True)
class PivotRoot:
    """Make the rootfs the root of the mount namespace and let go of the host's.

    The old root is stacked on the new one and unmounted from there, so that no directory for it
    is needed in the image.
    """

    def run(self, c: Context) -> None:
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(c.root.fd)
        pivot_root(".", ".")
        # "." alone would mean the new root, whose propagation is the container's own.
        os.fchdir(old)
        os.close(old)
        # The host must not see this unmount, were its root shared.
        set_propagation(".", k.MS_SLAVE | k.MS_REC)
        umount2(".", k.MNT_DETACH)
        os.chdir("/")


@dataclass(frozen=True, slots=True)
class MoveRoot:
    """--no-pivot, for a host whose root is a ramfs: move the rootfs onto / and chroot there."""

    def run(self, c: Context) -> None:
        os.fchdir(c.root.fd)
        mount(fd_path(c.root.fd), "/", "", k.MS_MOVE)
        chroot(".")
        os.chdir("/")


@dataclass(frozen=True, slots=True)
class Chroot:
    """Enter the rootfs in a mount namespace whose own root is other processes', too."""

    def run(self, c: Context) -> None:
        os.fchdir(c.root.fd)
        chroot(".")
        os.chdir("/")


@dataclass(frozen=True, slots=True)
class RootPropagation:
    """linux.rootfsPropagation, on what is now /."""

    propagation: str

    def run(self, c: Context) -> None:
        set_propagation("/", PROPAGATION[self.propagation])
