# SPDX-License-Identifier: GPL-3.0-or-later
"""A program run where whatever it leaves can't stay: namespaces, a cgroup and /run of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.harness import cgroup

# Seconds between TERM and KILL for a program whose time is up.
GRACE_SECONDS = 5
# timeout(1) exits with these: its TERM was enough, or it took KILL.
TIMED_OUT = (124, 137)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status, what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def timed_out(self) -> bool:
        return self.status in TIMED_OUT


class Jail:
    """Runs programs with a cgroup that they take for the root, in each v1 hierarchy or in v2.

    The mount namespace is private, /run is empty, and a pid namespace ends all processes with the
    program. A runtime finds the cgroups at the usual place: below /sys/fs/cgroup.
    """

    def __init__(self, name: str) -> None:
        """name: the cgroup's, below the machine's root cgroup."""
        self.path = f"/{name}"

    def run(self, argv: list[str], cwd: Path, env: dict[str, str], limit: int) -> Ended:
        """Run argv for at most limit seconds, then remove the cgroup."""
        places = self._make_cgroups()
        try:
            ended = subprocess.run(
                ["sh", "-euc", self._script(argv, places, limit)],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        finally:
            cgroup.remove_tree(self.path)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def _make_cgroups(self) -> dict[Path, str]:
        """Make the cgroup in every hierarchy; return mount point -> mount(8)'s arguments."""
        places: dict[Path, list[str]] = {}
        for controller, mountpoint in cgroup.hierarchies().items():
            places.setdefault(mountpoint, []).append(controller)
        hybrid = len(places) > 1
        found: dict[Path, str] = {}
        for mountpoint, names in places.items():
            # The empty v2 beside v1 hierarchies is left out: crun 1.8 refuses to work with it.
            if names == [""] and hybrid:
                continue
            place = mountpoint / self.path.lstrip("/")
            place.mkdir()
            for setting in ("cpuset.cpus", "cpuset.mems"):
                # A v1 cpuset takes no process before it has both; its children inherit nothing.
                if (place / setting).exists() and "cpuset" in names:
                    (place / setting).write_text((mountpoint / setting).read_text())
            if (place / "cgroup.clone_children").exists():
                (place / "cgroup.clone_children").write_text("1")
            found[mountpoint] = (
                "-t cgroup2 cgroup2"
                if names == [""]
                else f"-t cgroup -o {','.join(sorted(names))} cgroup"
            )
        return found

    def _script(self, argv: list[str], places: dict[Path, str], limit: int) -> str:
        quoted = " ".join(shlex.quote(word) for word in argv)
        inside = ["mount -t proc proc /proc", "mount -t tmpfs tmpfs /run"]
        if list(places.values()) == ["-t cgroup2 cgroup2"]:
            inside += ["umount -l /sys/fs/cgroup", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"]
        else:
            inside.append("mount -t tmpfs tmpfs /sys/fs/cgroup")
            for mountpoint, arguments in places.items():
                where = shlex.quote(str(mountpoint))
                inside += [f"mkdir -p {where}", f"mount {arguments} {where}"]
        # Not exec: a shell as pid 1 reaps what the containers leave, timeout(1) doesn't.
        inside.append(f"timeout -k {GRACE_SECONDS} {limit} {quoted} || exit $?\nexit 0")
        joins = [
            f"echo $$ > {shlex.quote(str(place / self.path[1:] / 'cgroup.procs'))}"
            for place in places
        ]
        namespaces = "--mount --cgroup --pid --fork --kill-child --propagation private"
        body = shlex.quote("\n".join(inside))
        return "\n".join([*joins, f"exec unshare {namespaces} sh -euc {body}"])


def environment(scratch: Path, **more: str) -> dict[str, str]:
    """Return an environment whose temporary files are below scratch."""
    return {"PATH": os.environ["PATH"], "HOME": "/root", "TMPDIR": str(scratch), **more}
