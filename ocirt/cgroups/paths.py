# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a container's cgroups are. Pure: the layout says all there is to know about the host.

Source: config-linux.md, chapter Cgroups Path.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ocirt.cgroups.layout import Hierarchy, Layout, Mode
from ocirt.errors import OcirtError

# The key of the v2 directory in the JSON form, as engines know it from runc's state.
_UNIFIED = ""


@dataclass(frozen=True, slots=True)
class CgroupPaths:
    """A container's cgroup directories: of v1 by controller or name=NAME, or the one of v2.

    unified is "" on v1 and hybrid, where the v2 hierarchy isn't used.
    """

    v1: Mapping[str, str]
    unified: str = ""

    def directory(self, controller: str) -> str | None:
        """Return the directory a controller's files are in, None where it isn't mounted."""
        return self.unified or self.v1.get(controller)

    @property
    def directories(self) -> tuple[str, ...]:
        """Return every directory once: controllers that are mounted together share one."""
        return (self.unified,) if self.unified else tuple(dict.fromkeys(self.v1.values()))

    def only(self, directories: Collection[str]) -> CgroupPaths:
        """Return the part of these paths that is among directories, as missing() named them.

        Whoever takes back an unfinished create may kill and remove there, and nowhere else.
        """
        v1 = {key: d for key, d in self.v1.items() if d in directories}
        return CgroupPaths(v1, self.unified if self.unified in directories else "")

    def to_json(self) -> dict[str, str]:
        """Return a JSON object from which from_json makes an equal value."""
        return {_UNIFIED: self.unified} if self.unified else dict(self.v1)

    @staticmethod
    def from_json(document: Mapping[str, str]) -> CgroupPaths:
        """Return what to_json was called on."""
        v1 = dict(document)
        unified = v1.pop(_UNIFIED, "")
        return CgroupPaths(v1, unified)


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """What a mount of type cgroup in the container shows below its destination.

    source, a directory of the host, goes to the subdirectory called name ("" on v2: to the
    destination itself); links are further names that point to it (cpu -> cpu,cpuacct). options
    are those of mount(2) that choose the hierarchy, for a mount in a cgroup namespace.
    """

    name: str
    source: str
    controllers: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    options: str = ""


def paths(cgroups_path: str | None, container_id: str, layout: Layout) -> CgroupPaths:
    """Return the directories for a linux.cgroupsPath (None or "": not given).

    An absolute path starts at the top of each hierarchy as it is mounted. A relative one starts at
    the runtime's own cgroup (on v2 at its parent, since a cgroup with processes can't have
    controllers below it). An absent one is the relative path container_id. ".." can't climb above
    the start. Raises OcirtError if nothing is left of the path.
    """
    wanted = cgroups_path or container_id
    inner = posixpath.normpath("/" + wanted).lstrip("/")
    if not inner:
        raise OcirtError(f"cgroupsPath {wanted!r} names no cgroup of its own")
    absolute = wanted.startswith("/")
    if layout.mode is Mode.V2 and layout.unified is not None:
        own = posixpath.dirname(layout.unified.own)
        return CgroupPaths({}, _join(layout.unified, "/" if absolute else own, inner))
    return CgroupPaths(
        {
            key: _join(hierarchy, "/" if absolute else hierarchy.own, inner)
            for hierarchy in layout.hierarchies
            for key in hierarchy.keys
        }
    )


def mount_sources(paths: CgroupPaths, layout: Layout) -> tuple[CgroupMount, ...]:
    """Return what to show in a container that mounts type cgroup (config-linux.md, Mounts)."""
    if paths.unified:
        return (CgroupMount("", paths.unified),)
    sources = []
    for hierarchy in layout.hierarchies:
        source = paths.v1.get(hierarchy.keys[0])
        if source is not None:
            controllers = hierarchy.controllers
            name = hierarchy.mountpoint.rpartition("/")[2]
            links = tuple(c for c in controllers if c != name)
            options = ",".join(controllers) or f"none,name={hierarchy.name}"
            sources.append(CgroupMount(name, source, controllers, links, options))
    return tuple(sources)


def _join(hierarchy: Hierarchy, start: str, inner: str) -> str:
    return "/".join(filter(None, (hierarchy.mountpoint, start.strip("/"), inner)))
