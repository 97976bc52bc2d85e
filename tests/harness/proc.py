# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc says about a process, for tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

# Far more than needed: a limit, not a measure.
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.01


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is so; fail the test if it never is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(PAUSE_SECONDS)


def pids() -> list[int]:
    """Return the processes of this pid namespace."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def namespace(pid: int | str, kind: str) -> str:
    """Return e.g. "net:[4026531840]" (namespaces(7)); "" where the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def mountinfo(pid: int | str = "self") -> list[str]:
    """Return the lines of a process's mountinfo (proc_pid_mountinfo(5))."""
    return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()


def status(pid: int | str) -> dict[str, str]:
    """Return /proc/PID/status as a dictionary (proc_pid_status(5)); {} if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def is_running(pid: int) -> bool:
    """Tell whether the process exists and isn't a zombie."""
    return status(pid).get("State", "Z")[0] not in "ZX"


def command(pid: int) -> str:
    """Return the command line, for people."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(gone)"
    return b" ".join(words).decode(errors="replace").strip() or f"[{status(pid).get('Name')}]"


def environment(pid: int) -> list[str]:
    """Return the NAME=value that the process was started with; [] if it is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
    return [entry.decode(errors="replace") for entry in entries]


def cgroup_names(pid: int) -> set[str]:
    """Return the names of the cgroups that the process is in, and of those above (cgroups(7))."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return set()
    return {name for line in lines for name in line.split(":", 2)[2].split("/")}
