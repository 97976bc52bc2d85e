# SPDX-License-Identifier: GPL-3.0-or-later
"""Ending a container's cgroups: signals to all in them, and removal of the directories."""

from __future__ import annotations

import errno
import os
import signal as signals
import time
from collections.abc import Callable, Iterable

from ocirt.cgroups import files
from ocirt.cgroups.paths import CgroupPaths
from ocirt.cgroups.tree import children, descend, members, processes
from ocirt.errors import OcirtError, describe

_FIRST_PAUSE = 0.0005  # seconds; each next one is twice as long
_LONGEST_PAUSE = 0.1

# From this round of killing on, the processes are forking faster than we kill.
_FREEZE_FROM_ROUND = 3


def kill(paths: CgroupPaths, signal: int, *, deadline_seconds: float = 10.0) -> None:
    """Send a signal to every process in the cgroups and below.

    With SIGKILL it returns when none is left, and frozen ones are thawed so that they can die;
    raises OcirtError if some are left at the deadline. The calling process is spared.
    """
    if signal != signals.SIGKILL:
        _signal(processes(paths), signal)
        return
    deadline = time.monotonic() + deadline_seconds
    pause = _FIRST_PAUSE
    attempt = 0
    while pids := _kill_round(paths, freeze=attempt >= _FREEZE_FROM_ROUND):
        if time.monotonic() > deadline:
            raise OcirtError(f"processes still live after SIGKILL: {_names(pids)}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        attempt += 1


def thaw(paths: CgroupPaths) -> None:
    """Let frozen processes go on, so that a signal can end them: on v2 it does anyway."""
    freezer = paths.v1.get("freezer")
    for directory in descend(freezer) if freezer else ():
        _try_write(f"{directory}/freezer.state", "THAWED")


def remove(
    directories: Iterable[str],
    *,
    deadline_seconds: float = 5.0,
    empty: Callable[[], None] | None = None,
) -> None:
    """Remove cgroups that create() made: those that missing() had named.

    Usually nobody is in them any more; if somebody is, empty() is called once.

    The innermost go with everything that was made below them. Those above them go too unless
    something else has moved in since. Gone already is fine. Raises OcirtError, after trying
    everything, for what still can't be removed at the deadline, with the processes that hold it.
    """
    left, above = _innermost(directories)
    errors: dict[str, OSError] = {}
    deadline = time.monotonic() + deadline_seconds
    pause = _FIRST_PAUSE
    while left := [d for d in left if not _removed(d, errors)]:
        if empty is not None:
            empty()
            empty = None
            continue
        if time.monotonic() > deadline or all(errors[d].errno != errno.EBUSY for d in left):
            break
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    for parent in sorted(above, key=len, reverse=True):
        try:
            os.rmdir(parent)
        except OSError:
            pass  # another container lives there, or it never was made
    if left:
        raise OcirtError("; ".join(_why_left(d, errors[d]) for d in left))


def _kill_round(paths: CgroupPaths, *, freeze: bool) -> list[int]:
    """Kill what is there now and return it; the caller's own pid isn't counted."""
    if paths.unified:
        _try_write(f"{paths.unified}/cgroup.kill", "1")  # kernel 5.14
    freezer = paths.v1.get("freezer")
    if freezer and freeze:
        _try_write(f"{freezer}/freezer.state", "FROZEN")
    own = os.getpid()
    pids = [pid for pid in processes(paths) if pid != own]
    _signal(pids, signals.SIGKILL)
    if pids:
        thaw(paths)
    return pids


def _signal(pids: Iterable[int], signal: int) -> None:
    own = os.getpid()
    for pid in pids:
        if pid != own:
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                pass


def _try_write(path: str, text: str) -> None:
    """Write to a file that this kernel may not have, or that may just have gone."""
    try:
        files.write(path, text)
    except OSError as e:
        if e.errno not in files.GONE:
            raise


def _removed(directory: str, errors: dict[str, OSError]) -> bool:
    """Remove a cgroup and all below; False, with the reason in errors, if it can't be now."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as e:
        errors[directory] = e
        if e.errno != errno.EBUSY:
            return False
    else:
        return True
    below = children(directory)
    staying = [d for d in below if not _removed(d, errors)]
    return bool(below) and not staying and _removed(directory, errors)


def _innermost(directories: Iterable[str]) -> tuple[list[str], set[str]]:
    """Part the cgroups that create() made in those that nothing is made in, and those above."""
    given = dict.fromkeys(directories)
    above = set()
    for directory in given:
        # missing() names a chain without gaps.
        while (directory := directory.rpartition("/")[0]) in given:
            above.add(directory)
    return [d for d in given if d not in above], above


def _why_left(directory: str, error: OSError) -> str:
    text = f"cannot remove cgroup {directory}: {describe(OSError(error.errno, error.strerror))}"
    pids = [pid for d in descend(directory) for pid in members(d)]
    return f"{text}, held by {_names(pids)}" if pids else text


def _names(pids: Iterable[int]) -> str:
    return ", ".join(f"{pid} ({_comm(pid)})" for pid in pids)


def _comm(pid: int) -> str:
    try:
        return files.read(f"/proc/{pid}/comm").strip()
    except OSError:
        return "?"
