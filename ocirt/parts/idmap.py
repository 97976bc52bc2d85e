# SPDX-License-Identifier: GPL-3.0-or-later
"""User namespace mappings (config-linux.md, "User namespace mappings"; user_namespaces(7))."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel.constants import AT_FDCWD
from ocirt.kernel.files import read_at, write_at
from ocirt.parts.step import Context
from ocirt.spec.model import IDMapping

# newuidmap(1) is looked for here when the environment has no PATH, as engines leave it.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class WriteIdMaps:
    """Map the ids of the new user namespace, from outside.

    With privilege by writing the maps; without it by newuidmap(1) and newgidmap(1), which know
    what /etc/subuid allows; without those a single id, the caller's own, can still be mapped.
    """

    uid_mappings: tuple[IDMapping, ...]
    gid_mappings: tuple[IDMapping, ...]
    privileged: bool

    def run(self, c: Context) -> None:
        if self.privileged:
            write_maps(c.init_pid, self.uid_mappings, self.gid_mappings)
            return
        _by_helper(c.init_pid, "newuidmap", "uid_map", self.uid_mappings, os.geteuid())
        # newgidmap may keep setgroups(2); a map written by ourselves must give it up.
        _by_helper(c.init_pid, "newgidmap", "gid_map", self.gid_mappings, os.getegid())


def write_maps(pid: int, uids: Sequence[IDMapping], gids: Sequence[IDMapping]) -> None:
    """Map the ids of a process's new user namespace, with privilege. Raises OSError."""
    _write(pid, "uid_map", uids)
    _write(pid, "gid_map", gids)


def _write(pid: int, file: str, mappings: Sequence[IDMapping]) -> None:
    text = "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings)
    write_at(AT_FDCWD, f"/proc/{pid}/{file}", text)


def _is_own_id(mappings: Sequence[IDMapping], own: int) -> bool:
    return len(mappings) == 1 and mappings[0].size == 1 and mappings[0].host_id == own


def _by_helper(pid: int, program: str, file: str, mappings: Sequence[IDMapping], own: int) -> None:
    if _is_own_id(mappings, own):
        if file == "gid_map":
            write_at(AT_FDCWD, f"/proc/{pid}/setgroups", "deny")
        _write(pid, file, mappings)
        return
    path = shutil.which(program, path=os.environ.get("PATH") or _PATH)
    if path is None:
        raise OcirtError(
            f"{program} is needed to map more than one's own id without privilege; install the"
            " package uidmap (shadow-utils)"
        )
    numbers = [str(n) for m in mappings for n in (m.container_id, m.host_id, m.size)]
    done = subprocess.run(
        [path, str(pid), *numbers], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise OSError(errno.EPERM, f"{words}; does /etc/sub{file[:3]} allow these ids?", program)


def user_outside(proc: int, pid: int | str, uid: int) -> int | None:
    """Return who a user of a process's user namespace is in ours, None if nobody.

    proc is a procfs, and pid a process's directory in it; what uid_map(5) says depends on who
    reads it (user_namespaces(7)).
    """
    for line in read_at(proc, f"{pid}/uid_map").splitlines():
        inside, outside, size = map(int, line.split())
        if inside <= uid < inside + size:
            return outside + uid - inside
    return None
