# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts are read from mountinfo and /proc/self/cgroup as hosts really have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt.cgroups import layout
from ocirt.cgroups.layout import Hierarchy, Mode
from ocirt.errors import OcirtError

SEPARATE_MOUNTS = """\
23 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
SEPARATE_OWN = """\
9:name=systemd:/
4:memory:/agent/4e5932
2:cpuacct:/
1:cpu:/
0::/
"""

DEBIAN_HYBRID = """\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
32 24 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,size=4096k,mode=755,inode64
33 32 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
34 32 0:30 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
39 32 0:35 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct
40 32 0:36 / /sys/fs/cgroup/net_cls,net_prio rw shared:16 - cgroup cgroup rw,net_cls,net_prio
41 32 0:37 / /sys/fs/cgroup/memory rw,nosuid shared:17 - cgroup cgroup rw,memory
"""
DEBIAN_OWN = """\
9:net_cls,net_prio:/
6:memory:/user.slice/user-1000.slice/session-1.scope
4:cpu,cpuacct:/user.slice
2:rdma:/
1:name=systemd:/user.slice/user-1000.slice/session-1.scope
0::/user.slice/user-1000.slice/session-1.scope
"""

PURE_V2 = """\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""

IN_CONTAINER = """\
700 650 0:60 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
701 700 0:30 /docker/abc /sys/fs/cgroup/systemd ro - cgroup cgroup rw,xattr,name=systemd
702 700 0:37 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
"""


def by_keys(found: layout.Layout) -> dict[tuple[str, ...], Hierarchy]:
    return {h.keys: h for h in found.hierarchies}


def test_one_mount_per_controller() -> None:
    found = layout.build(SEPARATE_MOUNTS, layout.parse_own(SEPARATE_OWN))
    assert found.mode is Mode.HYBRID
    assert by_keys(found) == {
        ("name=systemd",): Hierarchy((), "/sys/fs/cgroup/systemd", name="systemd"),
        ("memory",): Hierarchy(("memory",), "/sys/fs/cgroup/memory", own="/agent/4e5932"),
        ("cpuacct",): Hierarchy(("cpuacct",), "/sys/fs/cgroup/cpuacct"),
        ("cpu",): Hierarchy(("cpu",), "/sys/fs/cgroup/cpu"),
    }
    assert found.unified == Hierarchy((), "/sys/fs/cgroup/unified")


def test_debian_hybrid_with_systemd() -> None:
    found = layout.build(DEBIAN_HYBRID, layout.parse_own(DEBIAN_OWN))
    assert found.mode is Mode.HYBRID
    hierarchies = by_keys(found)
    assert hierarchies[("cpu", "cpuacct")].mountpoint == "/sys/fs/cgroup/cpu,cpuacct"
    assert hierarchies[("cpu", "cpuacct")].own == "/user.slice"
    assert ("net_cls", "net_prio") in hierarchies
    assert ("rdma",) not in hierarchies  # the kernel has it, but nobody mounted it
    assert found.unified is not None
    assert found.unified.own == "/user.slice/user-1000.slice/session-1.scope"


def test_v1_without_v2() -> None:
    mounts = SEPARATE_MOUNTS[: SEPARATE_MOUNTS.index("41 31")]
    found = layout.build(mounts, layout.parse_own(SEPARATE_OWN))
    assert found.mode is Mode.V1
    assert found.unified is None


def test_pure_v2() -> None:
    found = layout.build(PURE_V2, {"": "/system.slice/engine.service"})
    assert found.mode is Mode.V2
    assert found.hierarchies == ()
    assert found.unified == Hierarchy((), "/sys/fs/cgroup", own="/system.slice/engine.service")


def test_v2_mounted_over_v1_hides_it() -> None:
    over = "50 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n"
    found = layout.build(SEPARATE_MOUNTS + over, layout.parse_own(SEPARATE_OWN))
    assert found.mode is Mode.V2
    assert found.unified == Hierarchy((), "/sys/fs/cgroup")
    assert found.hierarchies == ()


def test_v1_mounted_over_v2_hides_it() -> None:
    below = "20 19 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n"
    found = layout.build(below + SEPARATE_MOUNTS, layout.parse_own(SEPARATE_OWN))
    assert found.mode is Mode.HYBRID


def test_inside_a_container_paths_are_relative_to_the_mounts_root() -> None:
    own = {"memory": "/docker/abc/inner", "name=systemd": "/docker/abc"}
    hierarchies = by_keys(layout.build(IN_CONTAINER, own))
    assert hierarchies[("memory",)].root == "/docker/abc"
    assert hierarchies[("memory",)].own == "/inner"
    assert hierarchies[("name=systemd",)].own == "/"


@pytest.mark.parametrize("own", ["/docker/abcdef", "/docker", "/elsewhere", "/../sibling"])
def test_an_own_cgroup_outside_the_mount_is_its_top(own: str) -> None:
    hierarchies = by_keys(layout.build(IN_CONTAINER, {"memory": own}))
    assert hierarchies[("memory",)].own == "/"


def test_other_mounts_of_a_hierarchy_dont_matter() -> None:
    shown = "30 23 0:32 /x /run/c/rootfs/sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    hierarchies = by_keys(layout.build(shown + SEPARATE_MOUNTS, layout.parse_own(SEPARATE_OWN)))
    assert hierarchies[("memory",)].mountpoint == "/sys/fs/cgroup/memory"


def test_odd_mountpoints_are_unescaped() -> None:
    line = r"32 31 0:29 /a\040b /mnt/my\040cgroups rw - cgroup my\040source rw,memory" + "\n"
    (entry,) = layout.parse_mounts(line)
    assert (entry.root, entry.mountpoint) == ("/a b", "/mnt/my cgroups")
    assert entry.options == {"rw", "memory"}


def test_named_hierarchies_with_a_colon_in_the_path() -> None:
    assert layout.parse_own("1:name=systemd:/a:b\n0::/\n") == {"name=systemd": "/a:b", "": "/"}


def test_no_cgroups_at_all_is_an_error() -> None:
    with pytest.raises(OcirtError, match="no cgroup filesystem"):
        layout.build("23 1 254:0 / / rw - ext4 /dev/vda rw\n", {"": "/"})


def test_detect_drops_an_own_cgroup_that_isnt_there(tmp_path: Path) -> None:
    top = tmp_path / "memory"
    (top / "there").mkdir(parents=True)
    proc = tmp_path / "proc" / "self"
    proc.mkdir(parents=True)
    line = f"32 31 0:29 / {top} rw - cgroup cgroup rw,memory\n"
    (proc / "mountinfo").write_text(line)
    for own, expected in (("/there", "/there"), ("/not/there", "/"), ("/gone (deleted)", "/")):
        (proc / "cgroup").write_text(f"4:memory:{own}\n")
        (hierarchy,) = layout.detect(str(tmp_path / "proc")).hierarchies
        assert hierarchy.own == expected


def test_detect_reads_the_controllers_of_v2(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "cgroup.controllers").write_text("cpu memory pids\n")
    proc = tmp_path / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text(f"35 24 0:30 / {tmp_path}/top rw - cgroup2 cgroup2 rw\n")
    (proc / "cgroup").write_text("0::/\n")
    found = layout.detect(str(tmp_path / "proc"))
    assert found.unified is not None
    assert found.unified.controllers == ("cpu", "memory", "pids")
