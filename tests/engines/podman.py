# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman as people call it, with everything it keeps in a directory of the test's."""

from __future__ import annotations

from pathlib import Path

from tests.engines.jail import Jail
from tests.harness.runtime import Result
from tests.harness.terminal import Session

# Without runtime_supports_json podman shows the runtime's raw stderr. Its default limits are above
# what a machine without CAP_SYS_RESOURCE may give.
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["crun", "runc", "ocirt"]
"""


class Podman:
    """Podman's command line, whose runtime is the one under test."""

    def __init__(self, jail: Jail, place: Path, runtime: str, cgroup_parent: str) -> None:
        self._jail = jail
        self._cgroup_parent = cgroup_parent
        self._words = ["podman", "--root", str(place / "root"), "--runroot", "/run/containers"]
        self._words += ["--storage-driver", "vfs", "--tmpdir", "/run/libpod", "--runtime", runtime]

    @staticmethod
    def environment(place: Path) -> dict[str, str]:
        """Write podman's settings; returns what has to be in its environment."""
        file = place / "containers.conf"
        file.write_text(_CONTAINERS_CONF)
        return {"CONTAINERS_CONF": str(file)}

    def call(self, *args: str) -> Result:
        return self._jail.run([*self._words, *args])

    def run(self, *args: str) -> Result:
        """podman run: options, "busybox", argv."""
        return self.call(*self._run(*args))

    def started(self, *args: str) -> str:
        """podman run -d; returns the id."""
        return self.run("--detach", *args).checked().stdout.strip()

    def at_terminal(self, command: str, *args: str) -> Session:
        """Run a command by somebody who sits at a terminal."""
        words = self._run(*args) if command == "run" else [command, *args]
        return Session(self._jail.words(*self._words, *words))

    def _run(self, *args: str) -> list[str]:
        return ["run", "--cgroup-parent", self._cgroup_parent, *args]
