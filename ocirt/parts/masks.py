# SPDX-License-Identifier: GPL-3.0-or-later
"""Masked and read-only paths (config-linux.md, "Masked Paths", "Readonly Paths")."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import lru_cache

from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.mounts import fd_path, mount, mount_setattr, move_mount, open_tree
from ocirt.parts.mount_attributes import remount_bind
from ocirt.parts.mounts import single, tree_flags
from ocirt.parts.step import Context, Side, Step
from ocirt.spec.model import Config

_NULL_DEVICE = os.makedev(1, 3)
_COVER = k.MS_RDONLY | k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC


def steps(config: Config) -> tuple[Step, ...]:
    """Return the steps for readonlyPaths, then maskedPaths, as runc orders them."""
    return _steps(config.linux.readonly_paths, config.linux.masked_paths)


# Every container of an engine has the same paths, which the image has met when it was built.
@lru_cache(maxsize=32)
def _steps(readonly_paths: tuple[str, ...], masked_paths: tuple[str, ...]) -> tuple[Step, ...]:
    read_only = (
        Step(Side.INIT, f"make {path} read-only", f"/linux/readonlyPaths/{i}", ReadOnlyPath(path))
        for i, path in enumerate(readonly_paths)
    )
    masked = (
        Step(Side.INIT, f"mask {path}", f"/linux/maskedPaths/{i}", MaskPath(path))
        for i, path in enumerate(masked_paths)
    )
    return (*read_only, *masked)


def _find(c: Context, path: str) -> int | None:
    """Open a path inside the root; None where there is nothing to hide or protect."""
    try:
        return c.root.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


@dataclass(frozen=True, slots=True)
class ReadOnlyPath:
    """Bind a path onto itself, read-only with all below it."""

    path: str

    def run(self, c: Context) -> None:
        target = _find(c, self.path)
        if target is None:
            return
        try:
            self._by_setattr(target)
        except OSError:
            self._by_remount(c, target)
        finally:
            os.close(target)

    def _by_setattr(self, target: int) -> None:
        tree = open_tree(target, "", tree_flags(True) | k.AT_EMPTY_PATH)
        try:
            mount_setattr(tree, k.AT_RECURSIVE, attr_set=k.MOUNT_ATTR_RDONLY)
            move_mount(tree, target)
        finally:
            os.close(tree)

    def _by_remount(self, c: Context, target: int) -> None:
        """The way of kernels, and of sandboxes around us, without mount_setattr(2)."""
        mount(fd_path(target), fd_path(target), "", k.MS_BIND | k.MS_REC)
        mounted = c.root.open(self.path)
        try:
            remount_bind(mounted, k.MS_RDONLY, 0)
        finally:
            os.close(mounted)


@dataclass(frozen=True, slots=True)
class MaskPath:
    """Hide a file behind the host's /dev/null, a directory behind an empty read-only tmpfs."""

    path: str

    def run(self, c: Context) -> None:
        target = _find(c, self.path)
        if target is None:
            return
        try:
            if stat.S_ISDIR(os.fstat(target).st_mode):
                mount("tmpfs", fd_path(target), "tmpfs", _COVER, "nr_blocks=1,nr_inodes=1")
            else:
                _cover_with_null(target)
        finally:
            os.close(target)


def _cover_with_null(target: int) -> None:
    with single("/dev/null") as (null, bind_on):
        if os.fstat(null).st_rdev != _NULL_DEVICE:
            raise OcirtError("/dev/null of the host isn't the null device: nothing can be masked")
        bind_on(target)
