# SPDX-License-Identifier: GPL-3.0-or-later
"""How the host's cgroups are mounted: v1, hybrid or v2, and where the runtime itself is in them.

Sources: cgroups(7), proc_pid_mountinfo(5), proc_pid_cgroup(5). Only detect() reads the host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from ocirt.cgroups import files
from ocirt.errors import OcirtError

CGROUP_MOUNT = "/sys/fs/cgroup"


class Mode(StrEnum):
    """Which version of cgroups manages the resources."""

    V1 = "v1"
    HYBRID = "hybrid"  # the controllers are v1's; a v2 hierarchy is mounted beside them
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy.

    root is the cgroup that the mount shows as its top, "/" unless the mount is a container's view.
    own is the runtime's own cgroup as a path below mountpoint, "/" when it isn't visible there.
    name is that of a named hierarchy (name=systemd), which has no controllers.
    """

    controllers: tuple[str, ...]
    mountpoint: str
    root: str = "/"
    own: str = "/"
    name: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What the hierarchy is called in CgroupPaths: its controllers, or name=NAME."""
        return (f"name={self.name}",) if self.name is not None else self.controllers


@dataclass(frozen=True, slots=True)
class Layout:
    """All hierarchies: those of v1 (none in pure v2), and the one of v2 if it is mounted."""

    mode: Mode
    hierarchies: tuple[Hierarchy, ...] = ()
    unified: Hierarchy | None = None


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount of type cgroup or cgroup2, from mountinfo; options are the superblock's."""

    root: str
    mountpoint: str
    fstype: str
    options: frozenset[str]


def detect(proc: str = "/proc") -> Layout:
    """Return the layout as the calling process sees it.

    Raises OSError if proc can't be read, OcirtError if no cgroup filesystem is mounted.
    """
    mountinfo = files.read(f"{proc}/self/mountinfo")
    layout = build(mountinfo, parse_own(files.read(f"{proc}/self/cgroup")))
    hierarchies = tuple(_only_visible(h) for h in layout.hierarchies)
    unified = layout.unified and _only_visible(layout.unified)
    if layout.mode is Mode.V2 and unified is not None:
        controllers = files.read(f"{unified.mountpoint}/cgroup.controllers").split()
        unified = replace(unified, controllers=tuple(controllers))
    return Layout(layout.mode, hierarchies, unified)


def build(mountinfo: str, own: dict[str, str]) -> Layout:
    """Return the layout that the texts describe; own is parse_own's. Pure.

    Raises OcirtError if no cgroup filesystem is mounted.
    """
    mounts = parse_mounts(mountinfo)
    v2 = [m for m in mounts if m.fstype == "cgroup2"]
    if _top_fstype(mountinfo) == "cgroup2":
        # Mounts further down, v1's too, are still listed but hidden beneath it.
        top = [m for m in v2 if m.mountpoint == CGROUP_MOUNT]
        return Layout(Mode.V2, (), _unified(top[-1], own))
    beside = _preferred(v2)
    unified = _unified(beside, own) if beside else None
    v1 = _by_option(m for m in mounts if m.fstype == "cgroup")
    found = (_hierarchy(line, path, v1) for line, path in own.items() if line)
    hierarchies = tuple(h for h in found if h is not None)
    if not hierarchies:
        if unified is None:
            raise OcirtError("no cgroup filesystem is mounted")
        return Layout(Mode.V2, (), unified)
    return Layout(Mode.HYBRID if unified else Mode.V1, hierarchies, unified)


def parse_mounts(mountinfo: str) -> list[MountEntry]:
    """Return the cgroup mounts of a mountinfo text, in its order.

    Looks at matching lines only: a host with many containers has thousands of others.
    """
    mounts = []
    at = mountinfo.find(" - cgroup")
    while at >= 0:
        start = mountinfo.rfind("\n", 0, at) + 1
        end = mountinfo.find("\n", at)
        if end < 0:
            end = len(mountinfo)
        _, _, _, root, mountpoint, *_, fstype, _, words = mountinfo[start:end].split(" ")
        if fstype in ("cgroup", "cgroup2"):
            options = frozenset(words.split(","))
            mounts.append(MountEntry(_unescape(root), _unescape(mountpoint), fstype, options))
        at = mountinfo.find(" - cgroup", end)
    return mounts


def parse_own(text: str) -> dict[str, str]:
    """Return /proc/PID/cgroup as a mapping: "cpu,cpuacct", "name=systemd" or "" (v2) to path."""
    own = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    return own


def _unified(mount: MountEntry, own: dict[str, str]) -> Hierarchy:
    return Hierarchy((), mount.mountpoint, mount.root, _below(mount.root, own.get("", "/")))


def _by_option(mounts: Iterable[MountEntry]) -> dict[str, list[MountEntry]]:
    """Return the mounts of v1 by the options that name their controllers."""
    found: dict[str, list[MountEntry]] = {}
    for mount in mounts:
        for option in mount.options:
            found.setdefault(option, []).append(mount)
    return found


def _hierarchy(line: str, path: str, mounts: dict[str, list[MountEntry]]) -> Hierarchy | None:
    mount = _preferred(mounts.get(line.partition(",")[0], []))
    if mount is None:
        return None
    named = line.startswith("name=")
    return Hierarchy(
        controllers=() if named else tuple(line.split(",")),
        mountpoint=mount.mountpoint,
        root=mount.root,
        own=_below(mount.root, path),
        name=line[len("name=") :] if named else None,
    )


def _preferred(mounts: list[MountEntry]) -> MountEntry | None:
    """Return the mount to use of one hierarchy: a container's rootfs may show others."""
    for mount in mounts:
        if mount.mountpoint.startswith(CGROUP_MOUNT):
            return mount
    return mounts[0] if mounts else None


def _top_fstype(mountinfo: str) -> str:
    """Return the type of what was mounted last on /sys/fs/cgroup, "" for nothing."""
    at = len(mountinfo)
    while (at := mountinfo.rfind(f" {CGROUP_MOUNT} ", 0, at)) >= 0:
        start = mountinfo.rfind("\n", 0, at) + 1
        # The words could also be the root of a bind mount: the field before the mountpoint.
        if mountinfo.count(" ", start, at) == 3:
            return mountinfo[at:].partition(" - ")[2].partition(" ")[0]
    return ""


def _below(root: str, path: str) -> str:
    """Return path as the mount with this root shows it, "/" if it lies outside."""
    if root == "/":
        return "/" if path.startswith("/..") else path
    if path.startswith(root + "/"):
        return path[len(root) :]
    return "/"


def _only_visible(hierarchy: Hierarchy) -> Hierarchy:
    """Replace an own cgroup that the mount doesn't show, as in a container, by "/"."""
    own = hierarchy.own
    if own == "/" or os.path.isdir(hierarchy.mountpoint + own):
        return hierarchy
    return replace(hierarchy, own="/")


def _unescape(field: str) -> str:
    if "\\" not in field:
        return field
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)
