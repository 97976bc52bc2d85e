# SPDX-License-Identifier: GPL-3.0-or-later
"""The one interface to a container's cgroups, whatever the host's layout.

The life of a container's cgroups: paths(), missing() into the undo journal, create(),
apply(EARLY), open_tasks() for init to join, apply(LATE), and in the end kill() and remove().
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ocirt.cgroups import v1, v2
from ocirt.cgroups.layout import Layout, Mode, detect
from ocirt.cgroups.paths import CgroupMount, CgroupPaths, mount_sources, paths
from ocirt.cgroups.resources import Phase, Write
from ocirt.cgroups.takedown import kill, remove, thaw
from ocirt.cgroups.tree import (
    add_process,
    create,
    delegate,
    effective_cpus,
    frozen,
    home_of,
    make_subgroup,
    missing,
    processes,
)
from ocirt.cgroups.writer import apply
from ocirt.spec.model import Resources

__all__ = [
    "Attachment",
    "CgroupMount",
    "CgroupPaths",
    "Layout",
    "Mode",
    "Phase",
    "Write",
    "add_process",
    "apply",
    "create",
    "delegate",
    "detect",
    "effective_cpus",
    "frozen",
    "home_of",
    "kill",
    "make_subgroup",
    "missing",
    "mount_sources",
    "open_tasks",
    "paths",
    "processes",
    "remove",
    "thaw",
    "warnings",
    "writes",
]


def writes(
    resources: Resources | None, layout: Layout, *, devices: bool = True
) -> tuple[Write, ...]:
    """Return what linux.resources means for this layout, in the order it must be written.

    devices=False leaves the device rules as they are. Raises OcirtError for a value that can't
    be had, with its pointer. Pure.
    """
    wanted = resources or Resources()
    if layout.mode is Mode.V2:
        return v2.writes(wanted, layout)
    return v1.writes(wanted, layout, devices=devices)


def warnings(resources: Resources | None, layout: Layout) -> tuple[str, ...]:
    """Return a sentence for each part of linux.resources that writes() leaves out. Pure."""
    wanted = resources or Resources()
    return v2.warnings(wanted) if layout.mode is Mode.V2 else v1.warnings(wanted)


@dataclass(frozen=True, slots=True)
class Attachment:
    """Descriptors by which a process joins a container's cgroups; all are close-on-exec.

    v1: a single-threaded process writes "0" to each descriptor of early, and, when it needs no
    more memory than the container may have, to those of late. Unlike writing its pid to
    cgroup.procs this doesn't wait for RCU. v2: into is the directory for clone3's
    CLONE_INTO_CGROUP, -1 on v1; where that fails, add_process() does it.
    """

    early: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    into: int = -1

    def close(self) -> None:
        """Close all descriptors."""
        for fd in (*self.early, *self.late):
            os.close(fd)
        if self.into >= 0:
            os.close(self.into)


def open_tasks(paths: CgroupPaths) -> Attachment:
    """Open the container's cgroups for joining; the caller closes the result. Raises OSError."""
    if paths.unified:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        return Attachment(into=os.open(paths.unified, flags))
    memory = paths.v1.get("memory")
    early: list[int] = []
    late: list[int] = []
    try:
        for directory in paths.directories:
            fd = os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)
            (late if directory == memory else early).append(fd)
    except OSError:
        Attachment(tuple(early), tuple(late)).close()
        raise
    return Attachment(tuple(early), tuple(late))
