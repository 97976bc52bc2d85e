# SPDX-License-Identifier: GPL-3.0-or-later
"""A place of its own for an engine: namespaces, /dev, /run. What it leaves there goes with it.

Engines are known to change the owner of /dev/null, to leave shims behind and to set up bridges:
none of that may reach the machine. Cgroups are the machine's; tests name those they want.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType

from tests.harness.runtime import Result

# An engine's operation takes seconds at most.
LIMIT_SECONDS = 60

# The first process of the pid namespace: bash reaps what it adopts.
_INIT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
new=/run/dev
mkdir $new
mount -t tmpfs -o mode=755,size=4m tmpfs $new
node() { mknod -m 666 "$new/$1" c "$2" "$3"; }
mkdir $new/pts $new/shm $new/net $new/mqueue
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0
node net/tun 10 200; node fuse 10 229
ln -s /proc/self/fd $new/fd
ln -s pts/ptmx $new/ptmx
mount --rbind /dev/pts $new/pts
mount -t tmpfs -o mode=1777 tmpfs $new/shm
mount --move $new /dev
for state in /var/lib/cni /var/lib/containers /var/lib/containerd; do
    if test -d $state; then mount -t tmpfs tmpfs $state; fi
done
ip link set lo up
echo ready
exec >/dev/null 2>&1 </dev/null
while :; do sleep 1000 & wait $!; done
"""


class Jail:
    """The namespaces, while it is entered."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self._outer: subprocess.Popen[str] | None = None
        self._init = 0

    def __enter__(self) -> Jail:
        words = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--mount-proc"]
        self._outer = subprocess.Popen(
            [*words, "bash", "-c", _INIT],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._outer.stdout is not None and self._outer.stderr is not None
        if self._outer.stdout.readline() != "ready\n":
            raise RuntimeError(f"no place for an engine: {self._outer.stderr.read()}")
        with open(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children") as file:
            self._init = int(file.read())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._outer is not None
        # With its first process a pid namespace ends, and with that all that held mounts.
        os.kill(self._init, signal.SIGKILL)
        self._outer.communicate(timeout=LIMIT_SECONDS)

    def words(self, *argv: str) -> list[str]:
        """Return the command line by which argv runs in here."""
        entering = ["nsenter", "-t", str(self._init), "-m", "-n", "-p", "-i", "-u", "--"]
        return ["/usr/bin/env", "-i", *self._settings(), *entering, *argv]

    def _settings(self) -> list[str]:
        return [f"{key}={value}" for key, value in self._environment.items()]

    def run(self, argv: Sequence[str], stdin: str = "") -> Result:
        """Run a command in here, its output in pipes as engines' callers have it."""
        words = self.words(*argv)
        ended = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        return Result(tuple(argv), ended.returncode, ended.stdout, ended.stderr)

    def spawn(self, argv: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """Start a daemon in here, its output in a file."""
        with open(log, "wb") as out:
            words = self.words(*argv)
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
