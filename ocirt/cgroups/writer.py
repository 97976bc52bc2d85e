# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing the planned values, and saying what is wrong when the kernel refuses one."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from ocirt.cgroups import files
from ocirt.cgroups.paths import CgroupPaths
from ocirt.cgroups.resources import Phase, Write
from ocirt.errors import StepError, describe

# Pauses in seconds before a value is tried again that the kernel found no room for (EBUSY).
_BUSY_PAUSES = (0.001, 0.01, 0.05)


def apply(paths: CgroupPaths, writes: Iterable[Write], phase: Phase) -> None:
    """Write the values of one phase, in order.

    Raises StepError naming file, value, pointer and errno at the first one that is refused.
    """
    wanted = (w for w in writes if w.phase is phase)
    for controller, group in groupby(wanted, key=attrgetter("controller")):
        _apply_group(paths.directory(controller), list(group))


def _apply_group(directory: str | None, writes: Sequence[Write]) -> None:
    """Write the values of one controller; those that may come in either order twice if needed."""
    if directory is None:
        first = writes[0]
        cause = f"container could not join or create cgroup of controller {first.controller}"
        raise StepError(f"cgroup: cannot set {first.file}", first.pointer, cause)
    put_off = []
    dir_fd = _open_directory(directory)
    opened: dict[str, int] = {}
    try:
        for write in writes:
            try:
                _write(dir_fd, opened, write)
            except OSError as e:
                if e.errno != errno.EINVAL or not write.either_order:
                    raise _refused(directory, write, e) from None
                put_off.append(write)
        for write in put_off:
            try:
                _write(dir_fd, opened, write)
            except OSError as e:
                raise _refused(directory, write, e) from None
    finally:
        for fd in (dir_fd, *opened.values()):
            os.close(fd)


def _open_directory(directory: str) -> int:
    try:
        return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise StepError("cgroup", "/linux/cgroupsPath", e) from None


def _write(dir_fd: int, opened: dict[str, int], write: Write) -> None:
    """Write one value; opened has the files that are open, since many values go to one file."""
    fd = opened.get(write.file)
    if fd is None:
        try:
            fd = os.open(write.file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        except FileNotFoundError:
            if write.otherwise:
                _write(dir_fd, opened, write.otherwise)
            elif not write.optional:
                raise
            return
        opened[write.file] = fd
    _write_patiently(fd, write.value.encode())


def _write_patiently(fd: int, value: bytes) -> None:
    for pause in _BUSY_PAUSES:
        try:
            os.write(fd, value)
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise
            time.sleep(pause)
        else:
            return
    os.write(fd, value)


def _refused(directory: str, write: Write, error: OSError) -> StepError:
    # The file that was tried last, where there are several.
    while write.otherwise and error.errno == errno.ENOENT:
        write = write.otherwise
    cause = describe(OSError(error.errno, os.strerror(error.errno or 0)))
    if hint := _hint(directory, write, error.errno or 0):
        cause += f" ({hint})"
    where = f"cgroup: write {write.value!r} to {directory}/{write.file}"
    return StepError(where, write.pointer, cause)


def _hint(directory: str, write: Write, code: int) -> str:
    """Return what may help, "" if nothing comes to mind. Reads what the kernel says now."""
    file, parent = write.file, os.path.dirname(directory)
    match write.controller, code:
        case _, errno.ENOENT:
            return _why_missing(directory, write)
        case "cpuset", _ if file in ("cpuset.cpus", "cpuset.mems"):
            now = _peek(f"{parent}/{file}.effective") or _peek(f"{parent}/{file}")
            return f"available are {now}" if now else ""
        case "memory", errno.EBUSY:
            now = _peek(f"{directory}/memory.usage_in_bytes")
            return f"usage is {now} bytes and can't be reduced" if now else ""
        case "devices", errno.EINVAL if write.value == "a":
            return "the default can't be changed while there are cgroups below"
        case "devices", errno.EPERM:
            return f"{parent} doesn't allow it, or we aren't root in the host's user namespace"
        case "cpu", errno.EINVAL if ".rt_" in file:
            return f"a child's realtime budget comes out of its parent's, see {parent}/{file}"
        case "cpu", errno.EINVAL:
            return "out of range, or more than the parent cgroup has"
        case "blkio" | "io", errno.EINVAL | errno.ENODEV:
            return "out of range, or the device isn't a whole block device"
    return ""


def _why_missing(directory: str, write: Write) -> str:
    enabled = _peek(f"{directory}/cgroup.controllers")
    if enabled is not None and write.controller not in enabled.split():
        return (
            f"the {write.controller} controller isn't enabled here: it must be in every"
            " cgroup.subtree_control above, and no cgroup above may hold processes"
        )
    if ".memsw." in write.file or ".swap." in write.file:
        return "the kernel doesn't account swap, boot it with swapaccount=1"
    return "this kernel has no such file"


def _peek(path: str) -> str | None:
    try:
        return files.read(path).strip()
    except OSError:
        return None
