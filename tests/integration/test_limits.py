# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits (config-linux.md, "Control groups"): read back from the kernel, and felt inside.

For cgroup v1, as on a hybrid machine; on a unified one they are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, cgroup, proc

pytestmark = pytest.mark.skipif(
    "memory" not in cgroup.hierarchies(), reason="needs cgroup v1 hierarchies"
)


def limited(container: Container, **resources: Any) -> int:
    """Start with these linux.resources; return init's pid."""
    container.bundle.set("/linux/resources", resources)
    container.create()
    container.start()
    return container.pid


def value(container: Container, controller: str, file: str) -> str:
    return container.cgroup_file(controller, file).read_text().strip()


def test_init_is_in_every_hierarchy(container: Container) -> None:
    pid = limited(container)
    for controller, mountpoint in cgroup.hierarchies().items():
        if controller:
            where = mountpoint / container.cgroups_path.lstrip("/")
            assert cgroup.processes(where) == [pid], controller


def test_memory(container: Container) -> None:
    limited(container, memory={"limit": 32 << 20, "reservation": 16 << 20, "swappiness": 5})
    assert value(container, "memory", "memory.limit_in_bytes") == str(32 << 20)
    assert value(container, "memory", "memory.soft_limit_in_bytes") == str(16 << 20)
    assert value(container, "memory", "memory.swappiness") == "5"


def test_memory_bites(container: Container) -> None:
    container.bundle.set("/linux/resources", {"memory": {"limit": 8 << 20}})
    # /dev/shm is memory, too.
    container.shell("dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null")
    assert container.run().status in (137, 1)


def test_cpu(container: Container) -> None:
    limited(container, cpu={"shares": 200, "quota": 20000, "period": 50000})
    assert value(container, "cpu", "cpu.shares") == "200"
    assert value(container, "cpu", "cpu.cfs_quota_us") == "20000"
    assert value(container, "cpu", "cpu.cfs_period_us") == "50000"


def test_cpuset(container: Container) -> None:
    pid = limited(container, cpu={"cpus": "0", "mems": "0"})
    assert value(container, "cpuset", "cpuset.cpus") == "0"
    assert proc.status(pid)["Cpus_allowed_list"] == "0"


def test_pids(container: Container) -> None:
    container.bundle.set("/linux/resources", {"pids": {"limit": 3}})
    container.shell("sleep 5 & sleep 5 & sleep 5 & sleep 5 & wait")
    result = container.run()
    assert "fork" in result.stderr, str(result)


def test_a_pids_limit_of_one_is_enough_for_one(container: Container) -> None:
    """The runtime's own set-up isn't counted: hooks of the container's side run, too."""
    hook = {"path": "/bin/true"}
    container.config["hooks"] = {"createContainer": [hook]}
    container.command("/bin/true")
    container.bundle.set("/linux/resources", {"pids": {"limit": 1}})
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("runc 1.1 needs more")
    container.run().checked()


DENY = {"allow": False, "access": "rwm"}


def test_devices_are_denied(container: Container) -> None:
    for path, minor in (("/dev/full", 7), ("/dev/mem", 1)):
        node = {"path": path, "type": "c", "major": 1, "minor": minor}
        container.bundle.config["linux"].setdefault("devices", []).append(node)
    container.bundle.set("/linux/resources", {"devices": [DENY]})
    container.shell("head -c1 /dev/zero | wc -c; head -c1 /dev/mem >/dev/null && echo read; true")
    result = container.run().checked()
    assert result.stdout == "1\n"
    assert "not permitted" in result.stderr


def test_a_device_that_is_allowed(container: Container) -> None:
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
    limited(container, devices=[DENY, rule])
    rules = value(container, "devices", "devices.list").splitlines()
    assert "c 1:11 r" in rules
    assert "c 1:3 rwm" in rules
    assert "a *:* rwm" not in rules


def test_a_relative_path_is_below_the_callers_cgroup(container: Container) -> None:
    relative = container.cgroups_path.lstrip("/") + "-rel"
    container.bundle.set("/linux/cgroupsPath", relative)
    try:
        pid = limited(container)
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        own = Path("/proc/self/cgroup").read_text().splitlines()
        (mine,) = [line.rpartition(":")[2] for line in own if ":pids:" in line]
        (its,) = [line.rpartition(":")[2] for line in lines if ":pids:" in line]
        assert its == os.path.join(mine, relative)
    finally:
        container.delete("--force")
        # runc leaves the parents that it made.
        parent = "/" + relative.split("/")[0]
        for place in sorted(cgroup.every_cgroup(), reverse=True):
            if place.endswith(parent):
                os.rmdir(place)


def test_no_path_at_all(container: Container) -> None:
    """Then the id is the cgroup's name, below the caller's."""
    del container.config["linux"]["cgroupsPath"]
    pid = limited(container)
    (line,) = [x for x in Path(f"/proc/{pid}/cgroup").read_text().split() if ":pids:" in x]
    assert line.endswith(container.id)
    container.delete("--force")
    assert not [p for p in cgroup.every_cgroup() if p.endswith(container.id)]
    container.bundle.set("/linux/cgroupsPath", f"/ocirt-test-none/{container.id}")


def test_a_cgroup_that_was_there_stays(container: Container) -> None:
    places = [
        mountpoint / container.cgroups_path.lstrip("/")
        for controller, mountpoint in cgroup.hierarchies().items()
        if controller in ("memory", "pids")
    ]
    for place in places:
        place.mkdir(parents=True)
    try:
        container.create()
        container.delete("--force")
        kept = [place.is_dir() for place in places]
    finally:
        cgroup.remove_tree(container.cgroups_path)
    if container.runtime.version().startswith("ocirt "):
        assert kept == [True, True]  # runc removes them


def test_a_cgroup_with_processes_is_refused_and_spared(container: Container) -> None:
    place = cgroup.hierarchies()["pids"] / container.cgroups_path.lstrip("/")
    place.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        os.execv("/bin/sleep", ["sleep", "1000"])
    try:
        (place / "cgroup.procs").write_text(str(child))
        container.bundle.save()
        if container.runtime.version().startswith("ocirt "):
            message = container.refused("create", "--bundle", str(container.bundle.directory))
            assert "not empty" in message
            container.runtime.call("delete", "--force", container.id).checked()
        assert proc.is_running(child)
        assert place.is_dir()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        place.rmdir()
