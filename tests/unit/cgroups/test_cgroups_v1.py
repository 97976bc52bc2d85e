# SPDX-License-Identifier: GPL-3.0-or-later
"""linux.resources as v1 files."""

from __future__ import annotations

import pytest

from ocirt.cgroups import v1
from ocirt.cgroups.layout import Hierarchy, Layout, Mode
from ocirt.cgroups.resources import Phase, Write
from ocirt.errors import StepError
from ocirt.spec.model import (
    CPU,
    BlockIO,
    BlockIOThrottleDevice,
    BlockIOWeightDevice,
    DeviceRule,
    HugepageLimit,
    InterfacePriority,
    Memory,
    Network,
    Pids,
    Rdma,
    Resources,
)

CONTROLLERS = (
    ("cpu", "cpuacct"),
    ("cpuset",),
    ("memory",),
    ("pids",),
    ("blkio",),
    ("hugetlb",),
    ("net_cls", "net_prio"),
    ("rdma",),
    ("freezer",),
)
LAYOUT = Layout(Mode.V1, tuple(Hierarchy(c, f"/sys/fs/cgroup/{','.join(c)}") for c in CONTROLLERS))
WITH_DEVICES = Layout(
    Mode.V1, (*LAYOUT.hierarchies, Hierarchy(("devices",), "/sys/fs/cgroup/devices"))
)


def plain(resources: Resources) -> list[tuple[str, str]]:
    return [(w.file, w.value) for w in v1.writes(resources, LAYOUT)]


def test_nothing_wanted_nothing_written() -> None:
    assert plain(Resources()) == []
    zeros = Resources(
        cpu=CPU(shares=0),
        memory=Memory(disable_oom_killer=False, kernel=0),
        block_io=BlockIO(weight=0),
    )
    assert plain(zeros) == []
    assert v1.warnings(zeros) == ()


def test_cpu() -> None:
    cpu = CPU(shares=512, quota=-1, period=100000, burst=5, cpus="0-1", mems="0")
    assert plain(Resources(cpu=cpu)) == [
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "-1"),
        ("cpu.cfs_burst_us", "5"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
    ]


def test_values_that_bound_each_other_may_come_in_either_order() -> None:
    cpu = CPU(quota=1, period=2, realtime_period=3, realtime_runtime=4)
    assert all(w.either_order for w in v1.writes(Resources(cpu=cpu), LAYOUT))


def test_an_idle_cgroup_has_no_shares() -> None:
    assert plain(Resources(cpu=CPU(shares=512, idle=1))) == [("cpu.idle", "1")]
    assert plain(Resources(cpu=CPU(shares=512, idle=0))) == [
        ("cpu.idle", "0"),
        ("cpu.shares", "512"),
    ]


def test_memory_limits_are_late_and_the_rest_is_early() -> None:
    memory = Memory(limit=200, swap=300, reservation=100, swappiness=0, disable_oom_killer=True)
    found = v1.writes(Resources(memory=memory), LAYOUT)
    assert [(w.file, w.value, w.phase) for w in found] == [
        ("memory.soft_limit_in_bytes", "100", Phase.EARLY),
        ("memory.swappiness", "0", Phase.EARLY),
        ("memory.oom_control", "1", Phase.EARLY),
        ("memory.limit_in_bytes", "200", Phase.LATE),
        ("memory.memsw.limit_in_bytes", "300", Phase.LATE),
    ]


@pytest.mark.parametrize("memory", [Memory(limit=-1), Memory(limit=-1, swap=-1)])
def test_unlimited_memory_raises_memsw_first(memory: Memory) -> None:
    found = v1.writes(Resources(memory=memory), LAYOUT)
    assert [(w.file, w.value, w.optional) for w in found] == [
        ("memory.memsw.limit_in_bytes", "-1", True),
        ("memory.limit_in_bytes", "-1", False),
    ]


def test_a_swap_limit_isnt_optional() -> None:
    (write,) = v1.writes(Resources(memory=Memory(swap=300)), LAYOUT)
    assert not write.optional


def test_kernel_memory_is_ignored_with_a_warning() -> None:
    resources = Resources(memory=Memory(kernel=1000))
    assert plain(resources) == []
    assert "kernel memory" in v1.warnings(resources)[0]


@pytest.mark.parametrize(("limit", "value"), [(-1, "max"), (0, "0"), (20, "20")])
def test_pids(limit: int, value: str) -> None:
    assert v1.writes(Resources(pids=Pids(limit)), LAYOUT) == (
        Write("pids", "pids.max", value, "/linux/resources/pids/limit", Phase.LATE),
    )


def test_block_io() -> None:
    limit = (BlockIOThrottleDevice(8, 0, 1024),)
    io = BlockIO(
        weight=300,
        weight_device=(BlockIOWeightDevice(8, 0, weight=500, leaf_weight=20),),
        throttle_read_bps_device=limit,
        throttle_write_bps_device=limit,
        throttle_read_iops_device=limit,
        throttle_write_iops_device=limit,
    )
    found = v1.writes(Resources(block_io=io), LAYOUT)
    assert [(w.file, w.value) for w in found] == [
        ("blkio.bfq.weight", "300"),
        ("blkio.bfq.weight_device", "8:0 500"),
        ("blkio.leaf_weight_device", "8:0 20"),
        ("blkio.throttle.read_bps_device", "8:0 1024"),
        ("blkio.throttle.write_bps_device", "8:0 1024"),
        ("blkio.throttle.read_iops_device", "8:0 1024"),
        ("blkio.throttle.write_iops_device", "8:0 1024"),
    ]
    assert found[0].otherwise == Write(
        "blkio", "blkio.weight", "300", "/linux/resources/blockIO/weight"
    )
    assert found[-1].pointer == "/linux/resources/blockIO/throttleWriteIOPSDevice/0"


def test_huge_pages_limit_reservations_first() -> None:
    found = v1.writes(Resources(hugepage_limits=(HugepageLimit("2MB", 10),)), LAYOUT)
    assert [(w.file, w.value, w.optional) for w in found] == [
        ("hugetlb.2MB.rsvd.limit_in_bytes", "10", True),
        ("hugetlb.2MB.limit_in_bytes", "10", False),
    ]


def test_network_and_rdma() -> None:
    resources = Resources(
        network=Network(0x100001, (InterfacePriority("eth0", 5),)),
        rdma={"mlx5_0": Rdma(hca_handles=2, hca_objects=3), "mlx5_1": Rdma(hca_objects=4)},
    )
    assert plain(resources) == [
        ("net_cls.classid", "1048577"),
        ("net_prio.ifpriomap", "eth0 5"),
        ("rdma.max", "mlx5_0 hca_handle=2 hca_object=3"),
        ("rdma.max", "mlx5_1 hca_object=4"),
    ]


def test_unified_needs_v2() -> None:
    with pytest.raises(StepError, match=r"/linux/resources/unified.*cgroup v2"):
        v1.writes(Resources(unified={"memory.high": "1"}), LAYOUT)


def test_a_limit_without_its_controller_is_an_error() -> None:
    bare = Layout(Mode.V1, (Hierarchy(("memory",), "/m"),))
    expected = "/linux/resources/pids/limit.*cannot set pids limit: container could not join"
    with pytest.raises(StepError, match=expected):
        v1.writes(Resources(pids=Pids(1)), bare)


def test_device_rules() -> None:
    rules = (
        DeviceRule(allow=False, access="rwm"),
        DeviceRule(allow=True, type="b", major=8, minor=None, access="r"),
    )
    found = v1.writes(Resources(devices=rules), WITH_DEVICES)
    assert [(w.file, w.value) for w in found][:4] == [
        ("devices.deny", "a"),
        ("devices.allow", "b 8:* r"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
    ]
    assert {w.phase for w in found} == {Phase.EARLY}
    assert v1.writes(Resources(devices=rules), WITH_DEVICES, devices=False) == ()


def test_device_rules_of_a_privileged_container() -> None:
    rules = (DeviceRule(allow=True, access="rwm"), DeviceRule(False, "c", 1, 1, "w"))
    found = v1.writes(Resources(devices=rules), WITH_DEVICES)
    assert [(w.file, w.value) for w in found] == [
        ("devices.allow", "a"),
        ("devices.deny", "c 1:1 w"),
    ]


def test_device_rules_without_the_controller() -> None:
    assert v1.writes(Resources(), LAYOUT) == ()
    assert v1.writes(Resources(devices=(DeviceRule(True, access="rwm"),)), LAYOUT) == ()
    with pytest.raises(StepError, match=r"devices/0.*devices controller isn't mounted"):
        v1.writes(Resources(devices=(DeviceRule(False, access="rwm"),)), LAYOUT)
