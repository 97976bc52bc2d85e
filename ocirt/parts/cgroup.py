# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps that put the container into its cgroup, limit it, and show it its cgroup.

The work is ocirt.cgroups'. Limits that would hit our own set-up code come late: when init is the
stub and weighs a few kilobytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from ocirt.cgroups import manager
from ocirt.cgroups.layout import Layout, Mode
from ocirt.cgroups.manager import CgroupMount, CgroupPaths
from ocirt.cgroups.resources import Phase, Write
from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.mounts import fd_path, mount
from ocirt.parts.idmap import user_outside
from ocirt.parts.mount_attributes import make_read_only
from ocirt.parts.mount_options import MountOptions
from ocirt.parts.mount_target import Mounted, check_target
from ocirt.parts.mounts import single
from ocirt.parts.rootpath import Make, Root
from ocirt.parts.step import Context, Side, Step, Undo, UndoKind
from ocirt.spec.known_annotations import DELEGATE_CGROUP
from ocirt.spec.model import Config, Mount

_MOUNT_FLAGS = k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class MakeCgroup:
    """Make the container's cgroup in every hierarchy, and open what init joins it by."""

    paths: CgroupPaths
    layout: Layout
    optional: bool

    def undo(self, c: Context) -> Undo:
        """Only what isn't there yet is ours to remove."""
        made = list(manager.missing(self.paths, self.layout))
        return Undo(UndoKind.CGROUP, {"paths": self.paths.to_json(), "made": made})

    def run(self, c: Context) -> None:
        try:
            manager.create(self.paths, self.layout)
            c.attachment = manager.open_tasks(self.paths)
        except OSError as e:
            if not self.optional or e.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            c.warn(f"no cgroup can be made without privilege ({e}); the container has no limits")
        else:
            c.cgroup = self.paths


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """Write the resource limits of one phase."""

    paths: CgroupPaths
    writes: tuple[Write, ...]
    phase: Phase

    def run(self, c: Context) -> None:
        if c.cgroup is not None:
            manager.apply(self.paths, self.writes, self.phase)


@dataclass(frozen=True, slots=True)
class PutIntoCgroup:
    """The runtime moves init, where it couldn't be cloned into its cgroup v2."""

    paths: CgroupPaths

    def run(self, c: Context) -> None:
        if c.cgroup is not None:
            manager.add_process(self.paths, c.init_pid)


@dataclass(frozen=True, slots=True)
class JoinCgroup:
    """Init moves itself: it has one thread, which v1's `tasks` files take without a long wait.

    memory_too: also into v1's memory cgroup, which otherwise comes last; a cgroup namespace is
    rooted where init is when it is made. LeaveMemoryCgroup then goes back.
    """

    memory_too: bool

    def run(self, c: Context) -> None:
        if c.attachment is not None:
            late = c.attachment.late if self.memory_too else ()
            for fd in (*c.attachment.early, *late):
                os.write(fd, b"0")


@dataclass(frozen=True, slots=True)
class OpenOwnMemoryCgroup:
    """Open the runtime's own memory cgroup for LeaveMemoryCgroup; it may not be visible here."""

    layout: Layout

    def run(self, c: Context) -> None:
        for hierarchy in self.layout.hierarchies:
            if "memory" in hierarchy.keys:
                tasks = f"{hierarchy.mountpoint}/{hierarchy.own}/tasks"
                try:
                    c.own_memory = os.open(tasks, os.O_WRONLY | os.O_CLOEXEC)
                except OSError:
                    return


@dataclass(frozen=True, slots=True)
class LeaveMemoryCgroup:
    """Go back to the runtime's memory cgroup, so that setting up isn't charged to the container."""

    def run(self, c: Context) -> None:
        if c.own_memory >= 0:
            os.write(c.own_memory, b"0")


@dataclass(frozen=True, slots=True)
class JoinMemoryCgroup:
    """The last move, on v1: what Python used to set the container up isn't charged to it."""

    def run(self, c: Context) -> None:
        if c.attachment is not None:
            for fd in c.attachment.late:
                os.write(fd, b"0")


def ownership_steps(
    config: Config, layout: Layout, *, new_namespace: bool, optional: bool
) -> Iterator[Step]:
    """Yield what gives a v2 cgroup to the container's user, once init is in it.

    config-linux.md, "Cgroup ownership": only with a new cgroup namespace, and where the container
    has its cgroup mounted for writing. crun's annotation gives it one below instead, with or
    without. optional: without privilege what can't be given is a warning.
    """
    name = config.annotations.get(DELEGATE_CGROUP)
    if layout.mode is not Mode.V2:
        if name is not None:
            raise OcirtError(
                f"/annotations/{DELEGATE_CGROUP}: {name!r}: cgroup v1 can't be delegated safely"
            )
        return
    uid = config.process.user.uid if config.process else 0
    if name is not None:
        pointer, words = f"/annotations/{DELEGATE_CGROUP}", f"move init to the cgroup {name} below"
        yield Step(Side.RUNTIME, words, pointer, MoveBelow(name, layout))
    if name is not None or (new_namespace and any(map(_is_writable_mount, config.mounts))):
        give = GiveCgroup(uid, name, optional)
        yield Step(Side.RUNTIME, f"give the cgroup to user {uid}", "/linux/cgroupsPath", give)


def _is_writable_mount(entry: Mount) -> bool:
    return (
        entry.source == "cgroup"
        and entry.destination == "/sys/fs/cgroup"
        and "ro" not in entry.options
    )


@dataclass(frozen=True, slots=True)
class MoveBelow:
    """crun's delegate-cgroup: limits stay on the container's cgroup, init lives in one below."""

    name: str
    layout: Layout

    def run(self, c: Context) -> None:
        if c.cgroup is not None:
            manager.make_subgroup(c.cgroup, self.name, self.layout, c.init_pid)


@dataclass(frozen=True, slots=True)
class GiveCgroup:
    """Give the cgroup, or one below, to whoever the container's user is out here."""

    uid: int
    below: str | None
    optional: bool

    def run(self, c: Context) -> None:
        if c.cgroup is None:
            return
        uid = user_outside(k.AT_FDCWD, f"/proc/{c.init_pid}", self.uid)
        if uid is None:
            raise OcirtError(f"user {self.uid} isn't mapped in the container's user namespace")
        place = c.cgroup.unified + (f"/{self.below}" if self.below is not None else "")
        try:
            manager.delegate(CgroupPaths({}, place), uid)
        except PermissionError as e:
            if not self.optional:
                raise
            c.warn(f"the cgroup can't be given to user {uid} without privilege ({e})")


@dataclass(frozen=True, slots=True)
class MountCgroup:
    """A mount of type cgroup: a tmpfs with the container's cgroup of each v1 hierarchy, or cgroup2.

    With a cgroup namespace these are mounts of their own, rooted at the container's cgroup;
    otherwise the host's directories are bound, so that nothing above them can be seen. Where the
    container got no cgroup (without privilege) there is nothing to show but an empty directory.
    """

    destination: str
    options: MountOptions
    layout: Layout
    mounts: tuple[CgroupMount, ...]
    own_namespace: bool

    def run(self, c: Context) -> None:
        target = c.root.make(self.destination, Make.DIRECTORY)
        try:
            check_target(c, target, self.destination, Mounted.OTHER)
            if self._is_v2(c):
                self._mount_v2(target)
            else:
                flags = _MOUNT_FLAGS & ~k.MS_RDONLY
                mount("tmpfs", fd_path(target), "tmpfs", flags, "mode=755,size=64k")
        finally:
            os.close(target)
        top = c.root.open(self.destination, os.O_PATH | os.O_DIRECTORY)
        try:
            if not self._is_v2(c) and self._has_something_to_show(c):
                self._furnish(Root(top))
            if self.options.flags & k.MS_RDONLY:
                make_read_only(top, recursive=True)
        finally:
            os.close(top)

    def _has_something_to_show(self, c: Context) -> bool:
        return self.own_namespace or c.cgroup is not None

    def _is_v2(self, c: Context) -> bool:
        return self.layout.mode is Mode.V2 and self._has_something_to_show(c)

    def _mount_v2(self, target: int) -> None:
        flags = (self.options.flags | _MOUNT_FLAGS) & ~(k.MS_REC | k.MS_RDONLY)
        if self.own_namespace or not self.mounts:
            mount("cgroup", fd_path(target), "cgroup2", flags)
        else:
            with single(self.mounts[0].source) as (_, bind_on):
                bind_on(target)

    def _furnish(self, top: Root) -> None:
        for entry in self.mounts:
            directory = top.add(entry.name)
            try:
                if self.own_namespace:
                    # The hierarchy's name among the controllers says which of the mounted it is.
                    options = entry.options
                    mount("cgroup", fd_path(directory), "cgroup", _MOUNT_FLAGS, options)
                else:
                    with single(entry.source) as (_, bind_on):
                        bind_on(directory)
            finally:
                os.close(directory)
            for link in entry.links:
                os.symlink(entry.name, link, dir_fd=top.fd)
