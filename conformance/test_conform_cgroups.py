# SPDX-License-Identifier: GPL-3.0-or-later
"""config-linux.md "Control groups" and what is below it; "IntelRdt" without the hardware."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest

from conformance.probe import assert_create_refused, text, try_create
from conformance.requirement import Level, requirement
from tests.harness import Container, Runtime, cgroup, proc

must = partial(requirement, "config-linux.md", level=Level.MUST)
should_not = partial(requirement, "config-linux.md", level=Level.SHOULD_NOT)
should = partial(requirement, "config-linux.md", level=Level.SHOULD)


def on_v1() -> bool:
    return "memory" in cgroup.hierarchies()


@must("Cgroups Path", 4, says="an absolute path is relative to the mount point")
def test_absolute_path(container: Container) -> None:
    container.create()
    for place in cgroup.directories(container.cgroups_path):
        assert container.pid in cgroup.processes(place)
    assert cgroup.directories(container.cgroups_path)


@must("Cgroups Path", 6, says="the same value is the same place")
def test_same_place(container: Container) -> None:
    found = []
    for _ in range(2):
        container.create()
        found.append(text(Path(f"/proc/{container.pid}/cgroup")))
        container.kill("KILL")
        container.wait_for("stopped")
        container.delete()
    assert found[0] == found[1]


@must("Cgroups Path", 8, says="a value that it takes for invalid is an error")
def test_path_out_of_the_mount_point(container: Container, token: str) -> None:
    # Whether this is invalid is the runtime's choice; but then it is an error.
    container.bundle.set("/linux/cgroupsPath", f"/../../ocirt-test-{token}/{container.id}")
    if try_create(container).status == 0:
        container.bundle.set("/linux/cgroupsPath", f"/ocirt-test-{token}/{container.id}")
        assert cgroup.directories(container.cgroups_path)


def owners(container: Container) -> set[int]:
    """Return the owners of the container's cgroups and of their files."""
    places = cgroup.directories(container.cgroups_path)
    files = [place for top in places for place in (top, *top.iterdir())]
    assert files
    return {os.stat(path).st_uid for path in files}


def delegate(container: Container, *, namespace: bool, mount: bool) -> None:
    container.bundle.set("/process/user", {"uid": 1000, "gid": 1000})
    if namespace:
        container.bundle.set("/linux/namespaces/-", {"type": "cgroup"})
    if mount:
        entry = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
        container.bundle.set("/mounts/-", entry | {"options": ["nosuid", "noexec", "nodev"]})


@should_not("Cgroup ownership", 2, says="on v1 owners stay")
def test_owners_on_v1(container: Container) -> None:
    if not on_v1():
        pytest.skip("needs cgroup v1")
    delegate(container, namespace=True, mount=True)
    container.create()
    assert owners(container) == {0}


@should_not("Cgroup ownership", 4, says="without a new cgroup namespace owners stay")
@should_not("Cgroup ownership", 16, says="no other file changes its owner")
def test_owners_without_namespace(container: Container) -> None:
    delegate(container, namespace=False, mount=True)
    container.create()
    assert owners(container) == {0}


@should_not("Cgroup ownership", 10, says="without a cgroup mount owners stay")
def test_owners_without_mount(container: Container) -> None:
    delegate(container, namespace=True, mount=False)
    container.create()
    assert owners(container) == {0}


@pytest.fixture
def unified(runtime: Runtime, directory: Path) -> Runtime:
    """The runtime where cgroup2 is all there is: as it is, or in a mount namespace where it is."""
    if not on_v1():
        return runtime
    script = directory / "unified"
    lines = [
        "mount --make-rprivate /",
        "umount -l /sys/fs/cgroup 2>/dev/null || :",
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        f'exec {runtime.executable} "$@"',
    ]
    body = "; ".join(lines)
    script.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{body}' sh \"$@\"\n")
    script.chmod(0o755)
    return Runtime(str(script), runtime.root)


def need_unified() -> None:
    if "" not in cgroup.hierarchies():
        pytest.skip("cgroup2 isn't mounted for this runtime")


DELEGATED = Path("/sys/kernel/cgroup/delegate")


@pytest.mark.right("the container has a new cgroup namespace and such a mount; uid 1000 is its own")
@should("Cgroup ownership", 6, says="with a namespace and a writable mount the owner is the user")
@should("Cgroup ownership", 11, says="the directory and the files that the kernel lists")
@requirement(
    "config-linux.md",
    "Cgroup ownership",
    14,
    level=Level.MUST_NOT,
    says="listed files that aren't there are no failure",
)
@should("Cgroup ownership", 14, says="listed files that are there get the owner")
@should_not("Cgroup ownership", 16, says="all others keep theirs")
def test_owners_on_v2(container: Container, unified: Runtime) -> None:
    need_unified()
    container.runtime = unified
    delegate(container, namespace=True, mount=True)
    container.create()
    place = cgroup.hierarchies()[""] / container.cgroups_path[1:]
    listed = set(DELEGATED.read_text().split())
    found = {entry.name for entry in place.iterdir() if entry.stat().st_uid == 1000}
    assert found == {entry.name for entry in place.iterdir()} & listed
    assert place.stat().st_uid == 1000


@must("Allowed Device list", 2, says="entries apply in the listed order")
@pytest.mark.parametrize("order, said", [(("allow", "deny"), "no"), (("deny", "allow"), "yes")])
def test_device_order(container: Container, order: tuple[str, ...], said: str) -> None:
    # kmsg: it isn't among the devices that runtimes allow of their own accord.
    node = {"path": "/dev/node", "type": "c", "major": 1, "minor": 11}
    container.bundle.set("/linux/devices", [node])
    rule = {"type": "c", "major": 1, "minor": 11, "access": "w"}
    rules = [rule | {"allow": what == "allow"} for what in order]
    every = {"allow": False, "access": "rwm"}
    container.bundle.set("/linux/resources/devices", [every, *rules])
    assert container.inside("(: > /dev/node) 2>/dev/null && echo yes || echo no") == said


@must("Memory", 19, says="checkBeforeUpdate: a limit below the usage is refused")
@pytest.mark.missing("the update command")
def test_check_before_update(container: Container, directory: Path) -> None:
    container.bundle.set("/linux/resources/memory", {"limit": 64 << 20})
    container.create()
    container.start()
    resources = directory / "resources.json"
    resources.write_text(json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}}))
    arguments = ("update", "--resources", str(resources), container.id)
    assert container.runtime.call(*arguments).status > 0
    assert container.status == "running"
    # It is the value that was refused: another is taken.
    resources.write_text(json.dumps({"memory": {"limit": 32 << 20, "checkBeforeUpdate": True}}))
    container.runtime.call(*arguments).checked()


@should("PIDs", 6, says="0 is a limit")
@pytest.mark.right("the sentence says that 0 is a limit like others; both take it for none")
def test_no_pids(container: Container) -> None:
    container.bundle.set("/linux/resources/pids", {"limit": 0})
    container.create()
    controller = "pids" if on_v1() else ""
    assert container.cgroup_file(controller, "pids.max").read_text() == "0\n"


@must("Unified", 5, says="a controller that isn't there is an error")
def test_unified_unknown_controller(container: Container) -> None:
    container.bundle.set("/linux/resources/unified", {"nosuchcontroller.max": "1"})
    assert_create_refused(container)


@must("Unified", 4, says="what the runtime doesn't know is written all the same")
@must("Unified", 3, says="the controllers that are needed are enabled")
def test_unified(container: Container, unified: Runtime) -> None:
    need_unified()
    container.runtime = unified
    top = cgroup.hierarchies()[""]
    controllers = (top / "cgroup.controllers").read_text().split()
    settings = {"hugetlb": ("hugetlb.2MB.max", "2097152"), "pids": ("pids.max", "77")}
    usable = [settings[name] for name in settings if name in controllers]
    if not usable:
        pytest.skip("cgroup2 has no controller here")
    # One that is no controller's.
    wanted = dict([usable[0], ("cgroup.max.descendants", "7")])
    container.bundle.set("/linux/resources/unified", wanted)
    container.create()
    place = top / container.cgroups_path[1:]
    assert {name: (place / name).read_text().strip() for name in wanted} == wanted


@must("IntelRdt", 4, says="without a mounted resctrl it is an error")
def test_no_resctrl(container: Container) -> None:
    if any(" - resctrl " in line for line in proc.mountinfo()):
        pytest.skip("needs a machine without a mounted resctrl")
    container.bundle.set("/linux/intelRdt", {"closID": "ocirt-test", "l3CacheSchema": "L3:0=f"})
    assert_create_refused(container)


@must("Unified", 7, says="a v1 setting that has no equivalent is an error")
@pytest.mark.right("a setting without effect would be a conversion that was possible")
def test_impossible_conversion(container: Container, unified: Runtime) -> None:
    need_unified()
    container.runtime = unified
    container.bundle.set("/linux/resources/network", {"classID": 1})
    assert_create_refused(container)


VALID = '"Valid values": an entry that must have something and has nothing is an error'


@must("CPU", 5, says="a quota below burst is an error")
@must("CPU", 6, says="a burst above quota is an error")
@pytest.mark.right('"Valid values": the kernel refuses it, too, where it has the file')
def test_burst_above_quota(container: Container) -> None:
    cpu = {"quota": 10000, "burst": 20000, "period": 100000}
    container.bundle.set("/linux/resources/cpu", cpu)
    assert_create_refused(container)


@must("Block IO", 14, says="an entry has a weight or a leaf weight")
@pytest.mark.right(VALID)
def test_device_without_weight(container: Container) -> None:
    entry = {"major": 8, "minor": 0}
    container.bundle.set("/linux/resources/blockIO", {"weightDevice": [entry]})
    assert_create_refused(container)


@must("RDMA", 7, says="an entry has hcaHandles or hcaObjects")
@pytest.mark.right(VALID)
def test_rdma_without_limit(container: Container) -> None:
    container.bundle.set("/linux/resources/rdma", {"mlx5_1": {}})
    assert_create_refused(container)
