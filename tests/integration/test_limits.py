# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits (config-linux.md, "Control groups"): read back from the kernel, and felt inside.

For cgroup v1, as on a hybrid machine; on a unified one they are skipped.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, cgroup, proc
from tests.harness.container import PATIENCE_SECONDS, PAUSE_SECONDS

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


@pytest.mark.skipif(
    not (cgroup.hierarchies().get("memory", Path()) / "memory.memsw.limit_in_bytes").exists(),
    reason="needs swap accounting",
)
@pytest.mark.parametrize("swap", [48 << 20, 32 << 20])
def test_memory_and_swap(container: Container, swap: int) -> None:
    limited(container, memory={"limit": 32 << 20, "swap": swap})
    assert value(container, "memory", "memory.limit_in_bytes") == str(32 << 20)
    assert value(container, "memory", "memory.memsw.limit_in_bytes") == str(swap)


def test_memory_bites(container: Container) -> None:
    # /dev/shm is memory, too.
    container.shell("dd if=/dev/zero of=/dev/shm/x bs=1M count=40; sleep 1000")
    limited(container, memory={"limit": 8 << 20})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "oom_kill 0" in (control := value(container, "memory", "memory.oom_control")):
        assert time.monotonic() < deadline, control
        time.sleep(PAUSE_SECONDS)
    assert int(value(container, "memory", "memory.max_usage_in_bytes")) <= 8 << 20


def test_the_oom_killer_can_be_off(container: Container) -> None:
    limited(container, memory={"limit": 32 << 20, "disableOOMKiller": True})
    assert "oom_kill_disable 1" in value(container, "memory", "memory.oom_control")


def test_cpu(container: Container) -> None:
    limited(container, cpu={"shares": 200, "quota": 20000, "period": 50000})
    assert value(container, "cpu", "cpu.shares") == "200"
    assert value(container, "cpu", "cpu.cfs_quota_us") == "20000"
    assert value(container, "cpu", "cpu.cfs_period_us") == "50000"


def test_cpuset(container: Container) -> None:
    pid = limited(container, cpu={"cpus": "0", "mems": "0"})
    assert value(container, "cpuset", "cpuset.cpus") == "0"
    assert proc.status(pid)["Cpus_allowed_list"] == "0"


def test_cpuset_with_cpus_alone(container: Container) -> None:
    """A new cpuset has no memory nodes: those of its parent are needed."""
    limited(container, cpu={"cpus": "0"})
    assert value(container, "cpuset", "cpuset.cpus") == "0"
    assert value(container, "cpuset", "cpuset.mems") != ""


def test_a_value_that_the_kernel_refuses(container: Container) -> None:
    container.bundle.set("/linux/resources", {"cpu": {"cpus": "4000"}})
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "cpuset.cpus" in message
    assert container.remains() == []


def disk() -> str:
    """Return MAJOR:MINOR of a disk of this machine, "" if there is none."""
    for entry in sorted(Path("/sys/block").iterdir()):
        if int((entry / "size").read_text()):
            return (entry / "dev").read_text().strip()
    return ""


def test_blkio_throttling(container: Container) -> None:
    if not (name := disk()):
        pytest.skip("needs a disk")
    major, minor = (int(n) for n in name.split(":"))
    files = {
        "throttleReadBpsDevice": "read_bps",
        "throttleWriteBpsDevice": "write_bps",
        "throttleReadIOPSDevice": "read_iops",
        "throttleWriteIOPSDevice": "write_iops",
    }
    rates = {field: 1000 + n for n, field in enumerate(files)}
    limited(
        container,
        blockIO={f: [{"major": major, "minor": minor, "rate": rates[f]}] for f in files},
    )
    for field, file in files.items():
        line = value(container, "blkio", f"blkio.throttle.{file}_device")
        assert line == f"{name} {rates[field]}"


def test_blkio_weight(container: Container) -> None:
    own = cgroup.hierarchies()["blkio"] / container.cgroups_path.lstrip("/")
    own.mkdir(parents=True)
    files = [name for name in ("blkio.bfq.weight", "blkio.weight") if (own / name).exists()]
    own.rmdir()
    if not files:
        pytest.skip("needs a scheduler with weights: BFQ, or CFQ")
    limited(container, blockIO={"weight": 123})
    assert value(container, "blkio", files[0]) == "123"


@pytest.mark.parametrize(("limit", "shown"), [(7, "7"), (-1, "max")])
def test_pids_max(container: Container, limit: int, shown: str) -> None:
    limited(container, pids={"limit": limit})
    assert value(container, "pids", "pids.max") == shown


def test_pids(container: Container) -> None:
    container.bundle.set("/linux/resources", {"pids": {"limit": 3}})
    container.shell("sleep 5 & sleep 5 & sleep 5 & sleep 5 & wait")
    result = container.run()
    assert "fork" in result.stderr, str(result)


@pytest.mark.peer_fails("runc", "1.1 limits its own set-up: it can't fork the hook")
def test_a_pids_limit_of_one_is_enough_for_one(container: Container) -> None:
    """The runtime's own set-up isn't counted: hooks of the container's side run, too."""
    hook = {"path": "/bin/true"}
    container.config["hooks"] = {"createContainer": [hook]}
    container.command("/bin/true")
    container.bundle.set("/linux/resources", {"pids": {"limit": 1}})
    container.run().checked()


DENY = {"allow": False, "access": "rwm"}
KMSG = {"type": "c", "major": 1, "minor": 11}


@pytest.mark.parametrize("access", ["", "r", "w", "rw"])
def test_the_access_of_a_rule_is_felt(container: Container, access: str) -> None:
    """The kernel's log is opened, with nothing read or written; null, zero always are allowed."""
    # Without it the log may be unreadable for another reason than the rule: dmesg_restrict.
    for kind in ("bounding", "effective", "permitted"):
        container.bundle.set(f"/process/capabilities/{kind}/-", "CAP_SYSLOG")
    container.bundle.set("/linux/devices", [{"path": "/dev/log", **KMSG}])
    rules = [DENY, *([{"allow": True, **KMSG, "access": access}] if access else [])]
    container.bundle.set("/linux/resources", {"devices": rules})
    container.shell(
        "head -c 1 /dev/zero > /dev/null || echo bad; (: < /dev/log) && echo r;"
        "(: > /dev/log) && echo w; true"
    )
    result = container.run().checked()
    assert result.stdout.split() == list(access)
    assert result.stderr.count("not permitted") == 2 - len(access)


def test_a_device_that_is_allowed(container: Container) -> None:
    limited(container, devices=[DENY, {"allow": True, **KMSG, "access": "r"}])
    rules = value(container, "devices", "devices.list").splitlines()
    assert "c 1:11 r" in rules
    assert "c 1:3 rwm" in rules
    assert "a *:* rwm" not in rules


def test_a_later_device_rule_wins(container: Container) -> None:
    allow = {"allow": True, **KMSG, "access": "rwm"}
    limited(container, devices=[DENY, allow, {"allow": False, **KMSG, "access": "w"}])
    rules = value(container, "devices", "devices.list").splitlines()
    assert "c 1:11 rm" in rules


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


@pytest.mark.peer_fails("runc", "1.1 removes what it finds as well as what it made")
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
    assert kept == [True, True]


@pytest.mark.peer_fails("runc", "1.1 warns and puts the container in with the others")
def test_a_cgroup_with_processes_is_refused_and_spared(container: Container) -> None:
    place = cgroup.hierarchies()["pids"] / container.cgroups_path.lstrip("/")
    place.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        os.execv("/bin/sleep", ["sleep", "1000"])
    try:
        (place / "cgroup.procs").write_text(str(child))
        container.bundle.save()
        message = container.refused("create", "--bundle", str(container.bundle.directory))
        assert "not empty" in message
        container.runtime.call("delete", "--force", container.id).checked()
        assert proc.is_running(child)
        assert place.is_dir()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # A runtime that didn't refuse has a container there, which the fixture deletes.
        cgroup.remove_tree(container.cgroups_path)
