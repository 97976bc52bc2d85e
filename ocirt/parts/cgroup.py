# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps that put the container into its cgroup, limit it, and show it its cgroup.

The work is ocirt.cgroups'. Limits that would hit our own set-up code come late: when init is the
stub and weighs a few kilobytes.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from ocirt.cgroups import manager
from ocirt.cgroups.layout import Layout, Mode
from ocirt.cgroups.manager import CgroupMount, CgroupPaths
from ocirt.cgroups.resources import Phase, Write
from ocirt.kernel import constants as k
from ocirt.kernel.mounts import fd_path, mount
from ocirt.parts.mount_options import MountOptions
from ocirt.parts.mounts import check_target, make_read_only, single
from ocirt.parts.rootpath import Make, Root
from ocirt.parts.step import Context, Undo, UndoKind

_MOUNT_FLAGS = k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class MakeCgroup:
    """Make the container's cgroup in every hierarchy, and open what init joins it by."""

    paths: CgroupPaths
    layout: Layout
    optional: bool

    def undo(self, c: Context) -> Undo:
        """Only what isn't there yet is ours to remove."""
        return Undo(
            UndoKind.CGROUP,
            {"paths": self.paths.to_json(), "made": list(manager.missing(self.paths))},
        )

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
            check_target(c, target, self.destination, in_proc_allowed=False)
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
            directory = top.make(entry.name, Make.DIRECTORY)
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
