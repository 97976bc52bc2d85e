# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the operations of one runtime and times them; one such process per runtime.

    python -m bench.driver RUNTIME DIRECTORY TOKEN

Reads requests from stdin, a JSON array [name, ...] each line, and answers each with a JSON
object. It is a process of its own because Debian's crun needs a mount namespace of its own on a
machine with a hybrid cgroup layout; all runtimes get the same treatment, so the comparison is fair.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.bundles import documents, make_unknown
from ocirt.image.placement import drop_from_page_cache

PARALLEL = 64
PATIENCE_SECONDS = 10.0


class Driver:
    """One runtime with its state directory, bundles and cgroups."""

    def __init__(self, runtime: str, directory: Path, token: str) -> None:
        self.runtime = runtime
        self.root = directory / "state"
        self.directory = directory
        self.token = token
        self.documents = documents(directory)
        self.number = 0

    def argv(self, *words: str) -> list[str]:
        return [self.runtime, "--root", str(self.root), *words]

    def call(self, *words: str) -> int:
        """Run one command without timing it; returns the exit status."""
        ended = subprocess.run(
            self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return ended.returncode

    def new_id(self) -> str:
        self.number += 1
        return f"{self.token}-{self.number}"

    def bundle(self, kind: str, name: str, memory: int | None = None) -> str:
        """Write a bundle of a container's own, with a cgroup of its own; not timed."""
        document = copy.deepcopy(self.documents[kind])
        document["linux"]["cgroupsPath"] = f"/ocirt-bench-{self.token}/{name}"
        if kind == "uncached":
            make_unknown(document["linux"]["seccomp"])
        if memory is not None:
            document["linux"]["resources"]["memory"] = {"limit": memory}
        place = self.directory / name
        place.mkdir()
        (place / "config.json").write_text(json.dumps(document))
        return str(place)

    # -- What is timed: each returns the command lines of one operation. --

    def commands(self, operation: str) -> list[list[str]]:
        name = self.new_id()
        if operation == "create+start+delete":
            return [
                self.argv("create", "--bundle", self.bundle("true", name), name),
                self.argv("start", name),
                self.argv("delete", "--force", name),
            ]
        if operation == "exec":
            return [self.argv("exec", f"{self.token}-idle", "/bin/true")]
        if operation == "state":
            return [self.argv("state", f"{self.token}-idle")]
        if operation == "list":
            return [self.argv("list")]
        return [self.argv("run", "--bundle", self.bundle(operation, name), name)]

    def measure(self, operation: str) -> dict[str, float]:
        """Do an operation once: milliseconds, minor faults; "failed" if it failed.

        What is invalid fails if it isn't refused.
        """
        lines = self.commands(operation)
        faults = failed = 0
        began = time.perf_counter()
        for line in lines:
            status, usage = spawn(line)
            failed |= bool(status) is not (operation == "invalid")
            faults += usage.ru_minflt
        taken = time.perf_counter() - began
        return {"ms": taken * 1000, "faults": faults, "failed": failed}

    def parallel(self) -> dict[str, float]:
        """Create many containers at once; the time until the last is there."""
        names = [self.new_id() for _ in range(PARALLEL)]
        lines = [self.argv("create", "--bundle", self.bundle("true", n), n) for n in names]
        began = time.perf_counter()
        pids = [start(line) for line in lines]
        failed = sum(os.waitpid(pid, 0)[1] for pid in pids)
        taken = time.perf_counter() - began
        for name in names:
            self.call("delete", "--force", name)
        return {"ms": taken * 1000, "failed": failed}

    # -- Surroundings. --

    def idle(self, count: int = 1) -> dict[str, float]:
        """Start the container that exec and state are about, and more for list."""
        name = f"{self.token}-idle"
        failed = self.call("run", "-d", "--bundle", self.bundle("idle", name), name)
        for number in range(1, count):
            other = f"{name}{number}"
            self.call("create", "--bundle", self.bundle("idle", other), other)
        return {"failed": failed}

    def clean(self, count: int = 1) -> dict[str, float]:
        self.call("delete", "--force", f"{self.token}-idle")
        for number in range(1, count):
            self.call("delete", "--force", f"{self.token}-idle{number}")
        for place in self.directory.glob(f"{self.token}-idle*"):
            shutil.rmtree(place)
        return {}

    def cold(self) -> dict[str, float]:
        """Drop the runtime's own file from the page cache."""
        drop_from_page_cache(Path(self.runtime))
        return self.measure("true")

    def created(self) -> dict[str, float]:
        """Return what the first process of a created container holds, in KiB."""
        name, pid_file = self.new_id(), Path(self.root.parent, "pid")
        bundle = self.bundle("true", name)
        if self.call("create", "--bundle", bundle, "--pid-file", str(pid_file), name):
            return {}
        rollup = Path(f"/proc/{pid_file.read_text().strip()}/smaps_rollup").read_text()
        self.call("delete", "--force", name)
        fields = dict(line.split(":") for line in rollup.splitlines()[1:])
        return {k: float(fields[k].split()[0]) for k in ("Private_Dirty", "Pss")}

    def peak(self) -> dict[str, float]:
        """Return the most that a `run` has held once its container runs, in KiB.

        ru_maxrss wouldn't do: the kernel counts from before the exec, and this process is larger.
        """
        name = self.new_id()
        pid = start(self.argv("run", "--bundle", self.bundle("idle", name), name))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.call("kill", name, "0") and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)  # what follows the program's start
        status = Path(f"/proc/{pid}/status").read_text()
        self.call("kill", name, "KILL")
        os.waitpid(pid, 0)
        return {"peak": float(status.partition("VmHWM:")[2].split()[0])}

    def smallest(self) -> dict[str, float]:
        """Return the least memory limit under which busybox true runs, in KiB."""
        for limit in (64, 128, 192, 256, 320, 384, 512, 768, 1024, 2048, 4096, 8192, 16384):
            if all(self._runs_with(limit << 10) for _ in range(3)):
                return {"limit": limit}
        return {}

    def _runs_with(self, limit: int) -> bool:
        name = self.new_id()
        return self.call("run", "--bundle", self.bundle("true", name, limit), name) == 0

    def system_calls(self) -> dict[str, float]:
        """Return how many system calls one run makes, in all its processes."""
        output = self.root.parent / "strace"
        argv = ["strace", "-f", "-qq", "-o", str(output), *self.commands("true")[0]]
        with open(os.devnull, "r+b") as null:
            subprocess.run(argv, stdin=null, stdout=null, stderr=null, check=False)
        lines = output.read_text(errors="replace").splitlines()
        return {"calls": sum("resumed>" not in line and "(" in line for line in lines)}


def start(argv: list[str]) -> int:
    """Start a program with stdio on /dev/null; returns its pid."""
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=null)


def spawn(argv: list[str]) -> tuple[int, resource.struct_rusage]:
    """Run a program to its end; returns its wait status and resource usage."""
    _, status, usage = os.wait4(start(argv), 0)
    return status, usage


def main() -> None:
    runtime, directory, token = sys.argv[1:]
    driver = Driver(runtime, Path(directory), token)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer: Any = getattr(driver, name)(*arguments)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
