# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount table (config.md, "Mounts"): each entry in order, below the container's root.

A destination becomes a descriptor through Root before anything is mounted on it. A bind mount is
cloned as a detached tree (open_tree(2)), gets its attributes there, and appears in the container
complete, by one move_mount(2): a container sharing the rootfs never sees it half made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.files import fstatfs_type
from ocirt.kernel.mounts import (
    AT_FDCWD,
    explain_mount,
    fd_path,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
)
from ocirt.parts.copyup import copy_up
from ocirt.parts.idmapped import IdMap
from ocirt.parts.locked_view import LockedView
from ocirt.parts.mount_attributes import WITHOUT_CALL, make_read_only, remount, set_attributes
from ocirt.parts.mount_options import MountOptions, parse
from ocirt.parts.mount_target import Mounted, check_target
from ocirt.parts.rootpath import Make
from ocirt.parts.step import Action, Context, Side, Step
from ocirt.spec.known_annotations import MOUNT_CONTEXT
from ocirt.spec.model import Config, Mount

# Each mount's pointer, entry and parsed options.
Table: TypeAlias = tuple[tuple[str, Mount, MountOptions], ...]

# Their files have labels of their own, which the policy knows.
_WITHOUT_CONTEXT = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue")


def table(config: Config) -> Table:
    """Return config.json's mounts with their options, as the functions below take them.

    Raises OcirtError for options that a mount can't have.
    """
    return tuple(
        (f"/mounts/{index}", entry, _options(entry, f"/mounts/{index}"))
        for index, entry in enumerate(config.mounts)
    )


def source_steps(
    config: Config, mounts: Table, bundle: str, *, host_opens_sources: bool, locked: bool
) -> Iterator[Step]:
    """Yield the steps by which the runtime opens sources of bind mounts, before there is an init.

    All of them (host_opens_sources) with a user namespace, whose root may not be allowed to reach
    them and must not change their flags (locked); and where the container's mounts are the host's,
    since what is mounted below a source must not appear on the host. Else those whose ids are
    mapped, which takes privilege over the filesystem.
    """
    opened = None
    for index, (pointer, entry, options) in enumerate(mounts):
        if not options.is_bind or options.flags & k.MS_REMOUNT:
            continue
        if not (host_opens_sources or options.idmap):
            continue
        source = os.path.join(bundle, entry.source or "")
        opened = OpenSource(
            index,
            source,
            recursive=bool(options.flags & k.MS_REC),
            idmap=_idmap(config, entry, options, pointer) if options.idmap else None,
            locked=host_opens_sources and locked,
        )
        words = f"open {source}, the source of mounts[{index}]"
        yield Step(Side.RUNTIME, words, f"{pointer}/source", opened)
    if opened is not None and opened.locked:
        yield Step(Side.RUNTIME, "let the helper end that opened sources", "/mounts", CloseView())


def _idmap(config: Config, entry: Mount, options: MountOptions, pointer: str) -> IdMap:
    """Return the mount's own mappings, or else those of the container's user namespace."""
    uids = entry.uid_mappings or config.linux.uid_mappings
    gids = entry.gid_mappings or config.linux.gid_mappings
    if not uids or not gids:
        raise OcirtError(
            f"{pointer}/uidMappings: an id-mapped mount needs mappings, and without any of its own"
            " the container needs some (/linux/uidMappings, /linux/gidMappings)"
        )
    return IdMap(uids, gids, options.idmap_recursive)


def steps(
    mounts: Table,
    bundle: str,
    *,
    mount_cgroup: Callable[[str, MountOptions], Action],
    own_sysfs: bool,
    context: str = "",
) -> Iterator[Step]:
    """Yield the steps that make the mount table.

    mount_cgroup makes the action for entries of type cgroup. Without own_sysfs the kernel refuses
    a new sysfs, and the host's is bound. context is the mount option that gives new filesystems
    their SELinux label.
    """
    for index, (pointer, entry, given) in enumerate(mounts):
        options = given
        where = f"mount mounts[{index}] ({entry.destination}, {entry.type or 'bind'})"
        if entry.type == "sysfs" and not own_sysfs:
            options = parse(("rbind", "rslave", *entry.options))
        is_bind = options.is_bind
        if is_bind and options.flags & k.MS_REMOUNT:
            change = ChangeMount(entry.destination, options)
            yield Step(Side.INIT, f"change the mount {entry.destination}", pointer, change)
            continue
        if is_bind:
            source = "/sys" if entry.type == "sysfs" else entry.source or ""
            path = os.path.join(bundle, source)
            bind = BindMount(index, path, entry.destination, options)
            yield Step(Side.INIT, f"{where}: bind {path}", pointer, bind)
            continue
        if entry.type == "cgroup":
            yield Step(Side.INIT, where, pointer, mount_cgroup(entry.destination, options))
            continue
        if context and entry.type not in _WITHOUT_CONTEXT:
            options = replace(options, data=(*options.data, context))
        later = _must_be_writable_first(entry, options)
        yield Step(Side.INIT, where, pointer, FilesystemMount(entry, options, later))


def context_option(config: Config) -> str:
    """Return the mount option for linux.mountLabel (mount(8)), "" without a label."""
    if not config.linux.mount_label:
        return ""
    kind = config.annotations.get(MOUNT_CONTEXT, "context")
    return f'{kind}="{config.linux.mount_label}"'


def warnings(mounts: Table) -> tuple[str, ...]:
    """Return a sentence for each bind mount with options that only a new filesystem could take."""
    return tuple(
        f"{pointer}/options: a bind mount has no use for {', '.join(options.data)}; left out"
        for pointer, _, options in mounts
        if options.data and options.is_bind
    )


def read_only_steps(mounts: Table) -> Iterator[Step]:
    """Yield the steps that make read-only what had to be furnished first."""
    for pointer, entry, options in mounts:
        if _must_be_writable_first(entry, options):
            remount = RemountReadOnly(entry.destination)
            yield Step(Side.INIT, f"make {entry.destination} read-only", pointer, remount)


def _options(entry: Mount, pointer: str) -> MountOptions:
    options = parse(entry.options)
    if entry.type == "bind" and not options.is_bind:
        options = parse(("bind", *entry.options))
    if entry.uid_mappings or entry.gid_mappings:
        options = replace(options, idmap=True)
    if options.idmap and not options.is_bind:
        raise OcirtError(
            f"{pointer}: 'idmap', or mappings: only the ids of bind mounts can be mapped"
        )
    if options.copy_up and (entry.type != "tmpfs" or options.is_bind):
        raise OcirtError(f"{pointer}/options: 'tmpcopyup' is for mounts of type tmpfs")
    return options


def _must_be_writable_first(entry: Mount, options: MountOptions) -> bool:
    """A tmpfs, and /dev, may still get mount points, nodes and links of ours."""
    if not options.flags & k.MS_RDONLY or options.is_bind:
        return False
    return entry.type == "tmpfs" or os.path.normpath(entry.destination) == "/dev"


@dataclass(frozen=True, slots=True)
class OpenSource:
    """Clone the source of a bind mount as a detached tree, with the runtime's privileges.

    locked: for a user namespace, whose root must not undo the flags that mounts have on the host.
    """

    index: int
    source: str
    recursive: bool
    idmap: IdMap | None = None
    locked: bool = False

    def run(self, c: Context) -> None:
        flags = tree_flags(self.recursive)
        if self.locked:
            if c.locked_view is None:
                c.locked_view = LockedView()
            tree = c.locked_view.open(self.source, flags)
        else:
            tree = open_tree(AT_FDCWD, self.source, flags)
        c.sources[self.index] = tree
        if self.idmap is not None:
            self.idmap.apply(tree)
        # As if it had been copied with the mount namespace: the container gets what the host
        # mounts there later, never the other way.
        mount_setattr(tree, k.AT_RECURSIVE, propagation=k.MS_SLAVE)


@dataclass(frozen=True, slots=True)
class CloseView:
    """All sources are open."""

    def run(self, c: Context) -> None:
        if c.locked_view is not None:
            c.locked_view.close()
            c.locked_view = None


@dataclass(frozen=True, slots=True)
class BindMount:
    """Bind a file or directory of the host into the container."""

    index: int
    source: str
    destination: str
    options: MountOptions

    def run(self, c: Context) -> None:
        tree = c.sources.pop(self.index, -1)
        detached = tree >= 0
        if not detached:
            tree, detached = clone_tree(self.source, recursive=bool(self.options.flags & k.MS_REC))
        is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        target = c.root.make(self.destination, Make.DIRECTORY if is_directory else Make.FILE)
        try:
            check_target(c, target, self.destination, self._kind(tree))
            if detached:
                done = set_attributes(tree, self.options)
                move_mount(tree, target)
                if not done:
                    remount(tree, self.options)
            else:
                recursive = self.options.flags & k.MS_REC
                mount(fd_path(tree), fd_path(target), "", k.MS_BIND | recursive)
                with _opened(c, self.destination) as mounted:
                    if not set_attributes(mounted, self.options):
                        remount(mounted, self.options)
        finally:
            os.close(target)
            os.close(tree)

    def _kind(self, tree: int) -> Mounted:
        # Asked for /proc alone: nowhere else does it matter.
        on_proc = os.path.normpath(self.destination) == "/proc"
        is_proc = on_proc and fstatfs_type(tree) == k.PROC_SUPER_MAGIC
        return Mounted.PROC if is_proc else Mounted.BIND


@dataclass(frozen=True, slots=True)
class ChangeMount:
    """bind with remount: give what is mounted at the destination other flags."""

    destination: str
    options: MountOptions

    def run(self, c: Context) -> None:
        with _opened(c, self.destination) as mounted:
            if not set_attributes(mounted, self.options):
                remount(mounted, self.options)


@dataclass(frozen=True, slots=True)
class FilesystemMount:
    """Mount a filesystem: proc, sysfs, tmpfs, devpts, mqueue, or any other the kernel has."""

    entry: Mount
    options: MountOptions
    read_only_later: bool

    def run(self, c: Context) -> None:
        destination, fstype = self.entry.destination, self.entry.type or ""
        flags = self.options.flags & ~k.MS_REC
        if self.read_only_later:
            flags &= ~k.MS_RDONLY
        inherits_mode = self._shows_mode() and c.root.exists(destination)
        target = self._target(c)
        try:
            kind = Mounted.PROC if fstype == "proc" else Mounted.OTHER
            check_target(c, target, destination, kind)
            data = self.options.data
            if inherits_mode:
                data = (*data, f"mode={stat.S_IMODE(os.fstat(target).st_mode):04o}")
            self._mount(target, fstype, flags, data)
            if self.options.copy_up:
                self._copy_up(c, target)
        finally:
            os.close(target)
        options = self.options
        if options.propagation or options.recursive_set or options.recursive_clear:
            # The descriptor of the target still means the directory below the new mount.
            later = replace(options, flags=0, cleared=0)
            with _opened(c, destination) as mounted:
                if not set_attributes(mounted, later):
                    remount(mounted, later)

    def _target(self, c: Context) -> int:
        destination = self.entry.destination
        if self.entry.type not in ("proc", "sysfs"):
            return c.root.make(destination, Make.DIRECTORY)
        # A link here would put the kernel's filesystem where masks and read-only paths don't look.
        os.close(c.root.make(destination, Make.DIRECTORY))
        target = c.root.open(destination, os.O_PATH | os.O_NOFOLLOW)
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            os.close(target)
            raise OcirtError(
                f"{destination}: {self.entry.type} must be mounted on an ordinary directory"
            )
        return target

    def _copy_up(self, c: Context, below: int) -> None:
        with _opened(c, self.entry.destination, os.O_RDONLY | os.O_DIRECTORY) as mounted:
            # The descriptor of the target still means the directory below the new mount.
            source = os.open(fd_path(below), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                copy_up(source, mounted)
            finally:
                os.close(source)

    def _shows_mode(self) -> bool:
        """Whether, as in runc, the mode of the directory below shows through, if there was one."""
        if self.entry.type != "tmpfs" or self.options.flags & k.MS_REMOUNT:
            return False
        return not any(d.startswith("mode=") for d in self.options.data)

    def _mount(self, target: int, fstype: str, flags: int, data: tuple[str, ...]) -> None:
        source = self.entry.source or fstype
        try:
            mount(source, fd_path(target), fstype, flags, ",".join(data))
        except OSError as e:
            words = explain_mount(fstype, source, data) if e.errno == errno.EINVAL else ""
            if e.errno == errno.ENODEV:
                words = f"this kernel has no filesystem {fstype!r}"
            if not words:
                raise
            raise OSError(e.errno, words) from None


@dataclass(frozen=True, slots=True)
class RemountReadOnly:
    """Make a mount read-only that had to be writable while it was furnished."""

    destination: str

    def run(self, c: Context) -> None:
        with _opened(c, self.destination) as mounted:
            make_read_only(mounted, recursive=False)


@contextmanager
def _opened(c: Context, path: str, flags: int = os.O_PATH) -> Iterator[int]:
    fd = c.root.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def tree_flags(recursive: bool) -> int:
    """Return open_tree(2)'s flags for a detached copy."""
    return k.OPEN_TREE_CLONE | (k.AT_RECURSIVE if recursive else 0)


def clone_tree(path: str, *, recursive: bool) -> tuple[int, bool]:
    """Return a detached copy of the mounts at a path of the host, and True; or, where open_tree(2)
    can't be used, the path's O_PATH descriptor and False. Raises OSError with the path.
    """
    try:
        return open_tree(AT_FDCWD, path, tree_flags(recursive)), True
    except OSError as e:
        if e.errno in WITHOUT_CALL:
            return os.open(path, os.O_PATH | os.O_CLOEXEC), False
        raise OSError(e.errno, os.strerror(e.errno or 0), path) from None


@contextmanager
def single(path: str) -> Iterator[tuple[int, Callable[[int], None]]]:
    """Open one file or directory of the host, without what is mounted below it.

    Yields its descriptor, to look at before it is used, and what binds it on a target descriptor.
    """
    tree, detached = clone_tree(path, recursive=False)

    def bind_on(target: int) -> None:
        if detached:
            move_mount(tree, target)
        else:
            mount(fd_path(tree), fd_path(target), "", k.MS_BIND)

    try:
        yield tree, bind_on
    finally:
        os.close(tree)
