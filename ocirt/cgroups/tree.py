# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of a container's cgroups: made, listed, and taken down again.

Sources: cgroups(7); the kernel's cgroup-v1/cgroups.rst, cgroup-v1/cpusets.rst, cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from posixpath import dirname

from ocirt.cgroups import files
from ocirt.cgroups.layout import Hierarchy, Layout
from ocirt.cgroups.paths import CgroupPaths
from ocirt.errors import StepError

_POINTER = "/linux/cgroupsPath"

# The files that a cgroup's new owner may have (cgroups(7)); kernels before 4.15 don't say.
_DELEGATE = "/sys/kernel/cgroup/delegate"
_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")

# How often mkdir may find that a parallel delete has just taken the parent away.
_MKDIR_TRIES = 16


def missing(paths: CgroupPaths, layout: Layout) -> tuple[str, ...]:
    """Return the directories that create() would make, each parent before its children.

    The caller records them before create(): only what is among them may be removed later.
    """
    there = {hierarchy.mountpoint for hierarchy in layout.hierarchies}
    found: dict[str, None] = {}
    for leaf in paths.directories:
        chain = []
        directory = leaf
        while directory not in there and directory not in found and not os.path.isdir(directory):
            chain.append(directory)
            directory = directory.rpartition("/")[0] or "/"
        found.update(dict.fromkeys(reversed(chain)))
    return tuple(found)


def create(paths: CgroupPaths, layout: Layout) -> None:
    """Make the directories, ready for resources to be set and processes to join.

    Raises OSError, with the path, if something can't be made or filled; StepError if a directory
    that is there already has processes, or is frozen (config-linux.md, Control groups: such a
    cgroup isn't fit for use).
    """
    existing = [d for d in paths.directories if not _make(d)]
    if paths.unified and layout.unified:
        _enable_controllers(paths.unified, layout.unified)
    elif cpuset := paths.v1.get("cpuset"):
        _inherit(cpuset, "cpuset.cpus")
        _inherit(cpuset, "cpuset.mems")
    _refuse_unfit(paths, existing)


def delegate(paths: CgroupPaths, uid: int) -> None:
    """Give a v2 cgroup to a user: the directory and the files that the kernel names for it.

    config-linux.md, "Cgroup ownership"; the limits stay the owner's who set them. Raises OSError.
    """
    try:
        files_given = files.read(_DELEGATE).split()
    except FileNotFoundError:
        files_given = list(_DELEGATED)
    directory = paths.unified
    for place in (directory, *(f"{directory}/{name}" for name in files_given)):
        try:
            if os.stat(place).st_uid != uid:
                os.chown(place, uid, -1)
        except FileNotFoundError:
            continue  # a controller that isn't enabled here


def make_subgroup(paths: CgroupPaths, name: str, layout: Layout, pid: int) -> CgroupPaths:
    """Make a cgroup below a container's one of v2, move init there, and enable controllers for it.

    Returns its paths. Raises OSError or StepError.
    """
    below = CgroupPaths({}, f"{paths.unified}/{name}")
    os.makedirs(below.unified, exist_ok=True)
    add_process(below, pid)
    # Only now: a cgroup that has processes of its own can't give controllers to those below.
    if layout.unified:
        _enable_controllers(below.unified, layout.unified)
    return below


def add_process(paths: CgroupPaths, pid: int) -> None:
    """Move a process, with all its threads, into every cgroup. Raises StepError."""
    for directory in paths.directories:
        try:
            files.write(f"{directory}/cgroup.procs", str(pid))
        except OSError as e:
            raise StepError(f"cgroup: add process {pid}", _POINTER, e) from None


def processes(paths: CgroupPaths) -> list[int]:
    """Return the pids in the cgroups and everything below them, sorted, each once."""
    return sorted({pid for top in paths.directories for d in descend(top) for pid in members(d)})


def home_of(paths: CgroupPaths, pid: int) -> str:
    """Return the v2 directory where another process may join a container, whose init is pid.

    Its own, or where init is, if that has moved below: a cgroup that has controllers for those
    below it takes no processes (cgroups(7), "no internal processes").
    """
    top = paths.unified
    if not files.read(f"{top}/cgroup.subtree_control").strip():
        return top
    return next((d for d in descend(top) if pid in members(d)), top)


def descend(top: str) -> Iterator[str]:
    """Yield a cgroup's directory and all below it, parents first; nothing if it is gone."""
    try:
        # The kernel counts subdirectories as links: most cgroups needn't be read.
        childless = os.stat(top).st_nlink == 2
    except FileNotFoundError:
        return
    yield top
    if not childless:
        for child in children(top):
            yield from descend(child)


def children(directory: str) -> list[str]:
    """Return the cgroups directly below one, none if it is gone."""
    try:
        with os.scandir(directory) as entries:
            return [e.path for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError as e:
        if e.errno in files.GONE:
            return []
        raise


def members(directory: str) -> list[int]:
    """Return the pids in one cgroup, without those that our pid namespace can't see."""
    try:
        text = files.read(f"{directory}/cgroup.procs")
    except OSError as e:
        # The processes of a threaded cgroup are listed by the domain above it.
        if e.errno in (*files.GONE, errno.EOPNOTSUPP):
            return []
        raise
    return [pid for line in text.split() if (pid := int(line))]


def effective_cpus(paths: CgroupPaths) -> str:
    """Return the CPUs that the cgroups let processes have, as a list (cpuset(7)); "" if unknown."""
    directory, name = paths.v1.get("cpuset", ""), "cpuset.effective_cpus"
    if paths.unified:
        directory, name = paths.unified, "cpuset.cpus.effective"
    while directory.strip("/"):
        try:
            return files.read(f"{directory}/{name}").strip()
        except FileNotFoundError:
            # Where v2's controller isn't enabled, those of the cgroup above count.
            directory = dirname(directory)
    return ""


def _make(directory: str) -> bool:
    """Make a directory and its parents; False if it was there already."""
    for _ in range(_MKDIR_TRIES):
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            return False
        except FileNotFoundError:
            _make(dirname(directory))
        else:
            return True
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)


def _inherit(directory: str, file: str) -> str:
    """Fill an empty cpuset file from the parent's: nothing can join a cgroup without."""
    path = f"{directory}/{file}"
    value = files.read(path).strip()
    if not value:
        value = _inherit(dirname(directory), file)
        files.write(path, value)
    return value


def _enable_controllers(leaf: str, unified: Hierarchy) -> None:
    """Enable every controller in all cgroups above leaf, as far as the kernel lets us.

    What can't be had is no error yet: maybe nobody wants to limit it.
    """
    wanted = unified.controllers
    if set(wanted) <= set(files.read(f"{leaf}/cgroup.controllers").split()):
        return
    above = []
    directory = dirname(leaf)
    while len(directory) >= len(unified.mountpoint):
        above.append(directory)
        directory = dirname(directory)
    for directory in reversed(above):
        path = f"{directory}/cgroup.subtree_control"
        enabled = files.read(path).split()
        new = [f"+{c}" for c in wanted if c not in enabled]
        # One that is refused takes the others of its write with it. EBUSY: there are processes; the
        # few controllers that would do all the same would make it a threaded domain, in which a
        # container's cgroup can't hold processes (cgroups(7)).
        if new and _refusal(path, " ".join(new)) not in (0, errno.EBUSY):
            for controller in new:
                _refusal(path, controller)


def _refusal(path: str, text: str) -> int:
    """Write; return 0, or the errno that the kernel refuses by."""
    try:
        files.write(path, text)
    except OSError as e:
        return e.errno or errno.EIO
    return 0


def _refuse_unfit(paths: CgroupPaths, existing: list[str]) -> None:
    pids = {pid for top in existing for d in descend(top) for pid in members(d)}
    if pids:
        cause = f"container's cgroup is not empty: {len(pids)} process(es) found"
        raise StepError("cgroup", _POINTER, f"{cause} in {existing[0]}")
    # Also in one just made: below a frozen cgroup all are frozen, and init would hang.
    if place := frozen(paths):
        raise StepError("cgroup", _POINTER, f"container's cgroup unexpectedly frozen: {place}")
    if paths.unified:
        kind = files.read(f"{paths.unified}/cgroup.type").strip()
        if kind != "domain":
            cause = (
                f"{paths.unified} is {kind}: a cgroup above it is threaded (cgroup.type),"
                " so it can't hold a container; choose another cgroupsPath"
            )
            raise StepError("cgroup", _POINTER, cause)


def frozen(paths: CgroupPaths) -> str | None:
    """Return the directory that is frozen, None if processes can run."""
    if paths.unified:
        is_frozen = "frozen 1" in files.read(f"{paths.unified}/cgroup.events")
        return paths.unified if is_frozen else None
    directory = paths.v1.get("freezer")
    if directory and files.read(f"{directory}/freezer.state").strip() != "THAWED":
        return directory
    return None
