# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs when and where, as /proc has it: scheduler, execCPUAffinity, memoryPolicy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, cgroup
from tests.integration.test_exec import NOT_RUN, execute, started

SINCE_12 = pytest.mark.peer_fails("runc", "has it since 1.2")


@contextmanager
def bound_to(cpus: set[int]) -> Iterator[None]:
    """Be bound to some CPUs for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@SINCE_12
@pytest.mark.parametrize(
    ("scheduler", "policy", "nice"),
    [
        ({"policy": "SCHED_BATCH", "nice": 5}, os.SCHED_BATCH, 5),
        ({"policy": "SCHED_OTHER", "nice": 7}, os.SCHED_OTHER, 7),
        ({"policy": "SCHED_IDLE"}, os.SCHED_IDLE, 0),
    ],
)
def test_scheduler(
    container: Container, tmp_path: Path, scheduler: dict[str, Any], policy: int, nice: int
) -> None:
    container.bundle.set("/process/scheduler", scheduler)
    started(container)
    file = tmp_path / "pid"
    execute(container, "--detach", f"--pid-file={file}", "/bin/sleep", "1000").checked()
    for pid in (container.pid, int(file.read_text())):
        assert os.sched_getscheduler(pid) == policy
        assert os.getpriority(os.PRIO_PROCESS, pid) == nice


@SINCE_12
def test_reset_on_fork(container: Container) -> None:
    scheduler = {"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    container.bundle.set("/process/scheduler", scheduler)
    started(container)
    assert os.sched_getscheduler(container.pid) == os.SCHED_BATCH | os.SCHED_RESET_ON_FORK


@SINCE_12
def test_a_scheduler_that_cant_be_had(container: Container) -> None:
    """No deadline can be kept that is longer than its period."""
    values = {"runtime": 10**9, "deadline": 10**6, "period": 10**6}
    container.bundle.set("/process/scheduler", {"policy": "SCHED_DEADLINE", **values})
    result = container.run()
    assert result.status == 1
    assert "scheduler" in result.stderr and "SCHED_DEADLINE" in result.stderr


@SINCE_12
def test_memory_policy(container: Container) -> None:
    policy = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    container.bundle.set("/linux/memoryPolicy", policy)
    started(container)
    maps = Path(f"/proc/{container.pid}/numa_maps").read_text().splitlines()
    assert maps and all(line.split()[1] == "bind=static:0" for line in maps)


@SINCE_12
@pytest.mark.parametrize("nodes", ["0-", "1-0", "x", "99999"])
def test_nodes_that_are_none(container: Container, nodes: str) -> None:
    container.bundle.set("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": nodes})
    container.bundle.save()
    words = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/linux/memoryPolicy/nodes" in words and nodes in words


@SINCE_12
def test_exec_affinity(container: Container, tmp_path: Path) -> None:
    last = max(os.sched_getaffinity(0))
    affinity = {"initial": "0", "final": str(last)}
    container.bundle.set("/process/execCPUAffinity", affinity)
    started(container)
    assert os.sched_getaffinity(container.pid) == os.sched_getaffinity(0)
    file = tmp_path / "pid"
    execute(container, "--detach", f"--pid-file={file}", "/bin/sleep", "1000").checked()
    assert os.sched_getaffinity(int(file.read_text())) == {last}


@pytest.mark.peer_fails("runc", "1.1 leaves it on its caller's CPUs")
def test_exec_runs_where_the_container_does(container: Container) -> None:
    """Whatever CPUs the caller of exec is confined to."""
    started(container)
    theirs, ours = os.sched_getaffinity(container.pid), os.sched_getaffinity(0)
    if len(ours) < 2:
        pytest.skip("needs two CPUs")
    for callers in ({min(ours)}, ours):
        with bound_to(callers):
            shown = execute(container, "/bin/grep", "Cpus_allowed:", "/proc/self/status").checked()
        mask = int(shown.stdout.split()[1].replace(",", ""), 16)
        assert {n for n in range(4096) if mask >> n & 1} == theirs


def test_a_cpuset_that_grows(container: Container, tmp_path: Path) -> None:
    """Who was let in while the container had one CPU gets the others, too: it chose none itself."""
    every = os.sched_getaffinity(0)
    if "cpuset" not in cgroup.hierarchies() or len(every) < 2:
        pytest.skip("needs cgroup v1's cpuset, and two CPUs")
    one, other = sorted(every)[:2]
    container.bundle.set("/linux/resources/cpu", {"cpus": str(one)})
    started(container)
    pids = [container.pid]
    # The last caller is itself bound to all that the container has.
    for callers in (every, {other}, {one}):
        file = tmp_path / f"pid{len(pids)}"
        with bound_to(callers):
            execute(container, "--detach", f"--pid-file={file}", "/bin/sleep", "1000").checked()
        pids.append(int(file.read_text()))
    assert [os.sched_getaffinity(pid) for pid in pids] == [{one}] * 4
    container.cgroup_file("cpuset", "cpuset.cpus").write_text(f"{one},{other}")
    assert [os.sched_getaffinity(pid) for pid in pids] == [{one, other}] * 4


@SINCE_12
def test_an_affinity_to_no_cpu(container: Container) -> None:
    container.bundle.set("/process/execCPUAffinity", {"final": "8000"})
    started(container)
    result = execute(container, "/bin/true")
    assert result.status == NOT_RUN
    assert "/process/execCPUAffinity/final" in result.stderr and "8000" in result.stderr


def test_where_a_container_may_run(container: Container) -> None:
    """Wherever its creator may, though that stays on one CPU; the same goes for waiting init."""
    every = os.sched_getaffinity(0)
    places = [every, {min(every)}, {max(every)}]
    for allowed in places:
        with bound_to(allowed):
            container.create()
            assert os.sched_getaffinity(container.pid) == allowed
            container.start()
            assert os.sched_getaffinity(container.pid) == allowed
        container.delete("--force")


ALLOWED = "Cpus_allowed_list:"


def telling_hook(told: Path) -> dict[str, Any]:
    """Return a hook that appends to a file where it may run."""
    script = f"grep {ALLOWED} /proc/self/status >>{told}"
    return {"path": "/bin/sh", "args": ["sh", "-c", script]}


def own_cpus() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(ALLOWED))


def test_where_hooks_may_run(container: Container, directory: Path) -> None:
    told = directory / "told"
    for kinds in (("createRuntime", "createContainer"), ("poststart", "poststop")):
        container.config["hooks"] = {kind: [telling_hook(told)] for kind in kinds}
        container.create()
        container.start()
        container.delete("--force")
        assert told.read_text().splitlines() == [own_cpus()] * 2, kinds
        told.unlink()


def test_where_the_hooks_of_run_may_run(container: Container, directory: Path) -> None:
    told = directory / "told"
    container.command("/bin/true")
    container.config["hooks"] = {k: [telling_hook(told)] for k in ("poststart", "poststop")}
    container.bundle.save()
    assert container.runtime.run(container.id, container.bundle).status == 0
    assert told.read_text().splitlines() == [own_cpus()] * 2


def test_where_the_hooks_after_a_failure_may_run(container: Container, directory: Path) -> None:
    told = directory / "told"
    container.config["hooks"] = {
        "startContainer": [{"path": "/bin/false"}],
        "poststop": [telling_hook(told)],
    }
    container.bundle.save()
    assert container.runtime.run(container.id, container.bundle).status != 0
    assert told.read_text().splitlines() == [own_cpus()]
