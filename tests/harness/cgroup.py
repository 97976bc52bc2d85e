# SPDX-License-Identifier: GPL-3.0-or-later
"""Where cgroups are on this machine, read straight from the kernel.

Independent of ocirt's own cgroups room, so that a mistake there can't hide itself.
"""

from __future__ import annotations

import os
from pathlib import Path


def hierarchies() -> dict[str, Path]:
    """Return controller -> mount point; "" is cgroup2, v1's named ones appear as "name=..."."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mountpoint = Path(fields.split()[4])
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2":
            found.setdefault("", mountpoint)
        elif kind == "cgroup":
            for name in options.split(","):
                if name not in ("rw", "ro"):
                    found.setdefault(name, mountpoint)
    return found


def directories(path: str) -> list[Path]:
    """Return the directories that exist for a cgroup path, over all hierarchies.

    None for a path that could mean the machine's own cgroups: whoever asks may kill what is there.
    """
    parts = path.split("/")
    if not any(parts) or {".", ".."} & set(parts):
        return []
    places = {mountpoint / path.lstrip("/") for mountpoint in hierarchies().values()}
    return sorted(place for place in places if place.is_dir())


def every_cgroup() -> set[str]:
    """Return all cgroup directories of the machine."""
    return {where for top in set(hierarchies().values()) for where, _, _ in os.walk(top)}


def processes(directory: Path) -> list[int]:
    """Return the processes of a cgroup, [] if it is gone."""
    try:
        return [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def remove_tree(path: str) -> None:
    """Remove a cgroup path and what is below it, in all hierarchies, as far as it is empty."""
    for top in directories(path):
        for where, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(where)
            except OSError:
                pass  # What is left is for the leak check to report.
