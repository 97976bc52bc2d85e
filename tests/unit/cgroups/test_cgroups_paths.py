# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a container's cgroups go, and how they are shown in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups.layout import Hierarchy, Layout, Mode
from ocirt.cgroups.paths import CgroupMount, CgroupPaths, mount_sources, paths
from ocirt.errors import OcirtError

CPU = Hierarchy(("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", own="/user.slice")
MEMORY = Hierarchy(("memory",), "/sys/fs/cgroup/memory")
SYSTEMD = Hierarchy((), "/sys/fs/cgroup/systemd", own="/a/b", name="systemd")
V1 = Layout(Mode.V1, (CPU, MEMORY, SYSTEMD))
V2 = Layout(Mode.V2, (), Hierarchy(("cpu",), "/sys/fs/cgroup", own="/a/b"))


def test_an_absolute_path_starts_at_each_mount() -> None:
    assert paths("/pod/c1", "id", V1) == CgroupPaths(
        {
            "cpu": "/sys/fs/cgroup/cpu,cpuacct/pod/c1",
            "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/pod/c1",
            "memory": "/sys/fs/cgroup/memory/pod/c1",
            "name=systemd": "/sys/fs/cgroup/systemd/pod/c1",
        }
    )
    assert paths("/pod/c1", "id", V2) == CgroupPaths({}, "/sys/fs/cgroup/pod/c1")


def test_a_relative_path_starts_at_the_own_cgroup() -> None:
    found = paths("pod/c1", "id", V1)
    assert found.v1["cpu"] == "/sys/fs/cgroup/cpu,cpuacct/user.slice/pod/c1"
    assert found.v1["memory"] == "/sys/fs/cgroup/memory/pod/c1"
    assert found.v1["name=systemd"] == "/sys/fs/cgroup/systemd/a/b/pod/c1"


def test_on_v2_a_relative_path_starts_beside_the_own_cgroup() -> None:
    assert paths("pod/c1", "id", V2).unified == "/sys/fs/cgroup/a/pod/c1"


@pytest.mark.parametrize("absent", [None, ""])
def test_an_absent_path_is_the_id(absent: str | None) -> None:
    assert paths(absent, "id", V1) == paths("id", "other", V1)
    assert paths(absent, "id", V2) == paths("id", "other", V2)


@pytest.mark.parametrize("nothing", ["/", "/..", ".", "a/..", "//"])
def test_a_path_that_names_nothing_is_an_error(nothing: str) -> None:
    with pytest.raises(OcirtError, match="names no cgroup"):
        paths(nothing, "id", V1)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b..", "..."]), min_size=1))
def test_no_path_climbs_out(parts: list[str]) -> None:
    for prefix in ("", "/"):
        try:
            found = paths(prefix + "/".join(parts) + "/x", "id", V1)
        except OcirtError:
            continue
        for hierarchy in V1.hierarchies:
            directory = found.v1[hierarchy.keys[0]]
            assert directory.startswith(hierarchy.mountpoint + "/")
            assert ".." not in directory.split("/")


def test_directories_that_controllers_share_are_named_once() -> None:
    assert paths("/c", "id", V1).directories == (
        "/sys/fs/cgroup/cpu,cpuacct/c",
        "/sys/fs/cgroup/memory/c",
        "/sys/fs/cgroup/systemd/c",
    )
    assert paths("/c", "id", V2).directories == ("/sys/fs/cgroup/c",)


def test_directory_of_a_controller() -> None:
    assert paths("/c", "id", V1).directory("memory") == "/sys/fs/cgroup/memory/c"
    assert paths("/c", "id", V1).directory("pids") is None
    assert paths("/c", "id", V2).directory("pids") == "/sys/fs/cgroup/c"


def test_only_some_directories() -> None:
    found = paths("/c", "id", V1)
    memory = "/sys/fs/cgroup/memory/c"
    assert found.only((memory, "/sys/fs/cgroup/memory")) == CgroupPaths({"memory": memory})
    assert paths("/c", "id", V2).only(()).directories == ()


@pytest.mark.parametrize("layout", [V1, V2])
def test_json_and_back(layout: Layout) -> None:
    found = paths("/c", "id", layout)
    assert CgroupPaths.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_mount_sources_of_v1() -> None:
    assert mount_sources(paths("/c", "id", V1), V1) == (
        CgroupMount(
            "cpu,cpuacct",
            "/sys/fs/cgroup/cpu,cpuacct/c",
            ("cpu", "cpuacct"),
            ("cpu", "cpuacct"),
            "cpu,cpuacct",
        ),
        CgroupMount("memory", "/sys/fs/cgroup/memory/c", ("memory",), (), "memory"),
        CgroupMount("systemd", "/sys/fs/cgroup/systemd/c", (), (), "none,name=systemd"),
    )


def test_mount_sources_of_v2() -> None:
    assert mount_sources(paths("/c", "id", V2), V2) == (CgroupMount("", "/sys/fs/cgroup/c"),)
