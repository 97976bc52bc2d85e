# SPDX-License-Identifier: GPL-3.0-or-later
"""One container of a test, from its bundle to the proof that nothing of it is left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness import cgroup, proc
from tests.harness.bundle import Bundle
from tests.harness.runtime import Result, Runtime

# Signals and the kernel's clean-up take a moment. Far more than needed: a limit, not a measure.
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.01


class Container:
    """A container id with its bundle. Methods fail the test if the runtime refuses."""

    def __init__(self, runtime: Runtime, container_id: str, bundle: Bundle) -> None:
        self.runtime = runtime
        self.id = container_id
        self.bundle = bundle

    @property
    def config(self) -> dict[str, Any]:
        """config.json, to change before create() or run()."""
        return self.bundle.config

    def command(self, *argv: str) -> None:
        """Make argv the container's process."""
        self.bundle.set("/process/args", list(argv))

    def shell(self, script: str) -> None:
        """Make a shell script the container's process."""
        self.command("/bin/sh", "-c", script)

    def create(self, *options: str) -> Result:
        return self.runtime.create(self.id, self.bundle, *options)

    def start(self) -> Result:
        return self.runtime.start(self.id)

    def run(self, *options: str) -> Result:
        """Run in the foreground; the status isn't checked, it is the container's."""
        return self.runtime.run(self.id, self.bundle, *options)

    def inside(self, script: str) -> str:
        """Run a shell script as the container's process; return its stdout, without the end \\n."""
        self.shell(script)
        return self.run().checked().stdout.rstrip("\n")

    def kill(self, *args: str) -> Result:
        return self.runtime.kill(self.id, *args)

    def delete(self, *options: str) -> Result:
        return self.runtime.delete(self.id, *options)

    def refused(self, command: str, *args: str) -> str:
        """Return stderr of a command on this container that must fail."""
        return self.runtime.refused(command, *args, self.id)

    def state(self) -> dict[str, Any]:
        return self.runtime.state(self.id)

    @property
    def status(self) -> str:
        return str(self.state()["status"])

    @property
    def pid(self) -> int:
        """The host's pid of the container's process, from its state."""
        return int(self.state()["pid"])

    def wait_for(self, status: str) -> None:
        """Wait until the container's state is this."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (now := self.status) != status:
            assert time.monotonic() < deadline, f"{self.id} is still {now}, not {status}"
            time.sleep(PAUSE_SECONDS)

    @property
    def cgroups_path(self) -> str:
        return str(self.bundle.get("/linux/cgroupsPath"))

    def cgroup_file(self, controller: str, name: str) -> Path:
        """Return the path of a cgroup's file; a controller that isn't v1's here is cgroup2's."""
        hierarchies = cgroup.hierarchies()
        top = hierarchies.get(controller) or hierarchies[""]
        return top / self.cgroups_path.lstrip("/") / name

    def freeze(self, *, frozen: bool) -> None:
        """Freeze or thaw the container by its cgroup, and wait until it is."""
        if "freezer" in cgroup.hierarchies():
            state = self.cgroup_file("freezer", "freezer.state")
            state.write_text("FROZEN" if frozen else "THAWED")
            done = "FROZEN\n" if frozen else "THAWED\n"
        else:
            self.cgroup_file("", "cgroup.freeze").write_text(str(int(frozen)))
            state = self.cgroup_file("", "cgroup.events")
            done = f"frozen {int(frozen)}\n"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not state.read_text().endswith(done):
            assert time.monotonic() < deadline, state.read_text()
            time.sleep(PAUSE_SECONDS)

    def processes(self) -> list[int]:
        """Return the processes in the container's cgroups."""
        places = cgroup.directories(self.cgroups_path)
        return sorted({pid for place in places for pid in cgroup.processes(place)})

    def remains(self) -> list[str]:
        """Return what is left of a container that should be gone: cgroups, processes, files."""
        entry = self.runtime.root / self.id
        left = [f"cgroup {place}" for place in cgroup.directories(self.cgroups_path)]
        left += [f"process {pid} ({proc.command(pid)})" for pid in self.processes()]
        left += [f"state {path}" for path in (entry, *entry.rglob("*")) if path.exists()]
        left += [f"mount {line}" for line in proc.mountinfo() if str(self.bundle.directory) in line]
        return left

    def clean_up(self) -> None:
        """Delete the container whatever became of it; fail the test if anything is left."""
        result = self.runtime.call("delete", "--force", self.id)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := self.remains()) and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        if left:
            self.sweep()
        assert not left, "left behind:\n" + "\n".join(left) + f"\n{result}"
        assert result.status == 0, str(result)

    def sweep(self) -> None:
        """Do what the runtime should have done, so that one failure doesn't spoil what follows."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while cgroup.directories(self.cgroups_path) and time.monotonic() < deadline:
            cgroup.remove_tree(self.cgroups_path)
            time.sleep(PAUSE_SECONDS)
