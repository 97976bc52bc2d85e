# SPDX-License-Identifier: GPL-3.0-or-later
"""linux.resources as v2 files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import manager, v2
from ocirt.cgroups.layout import Hierarchy, Layout, Mode
from ocirt.cgroups.resources import Phase
from ocirt.errors import StepError
from ocirt.spec.model import (
    CPU,
    BlockIO,
    BlockIOThrottleDevice,
    BlockIOWeightDevice,
    DeviceRule,
    HugepageLimit,
    Memory,
    Network,
    Pids,
    Rdma,
    Resources,
)

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma")
LAYOUT = Layout(Mode.V2, (), Hierarchy(CONTROLLERS, "/sys/fs/cgroup"))


def plain(resources: Resources) -> list[tuple[str, str]]:
    return [(w.file, w.value) for w in v2.writes(resources, LAYOUT)]


@given(st.integers(0, 300_000))
def test_cpu_weight_grows_with_shares(shares: int) -> None:
    assert 1 <= v2.cpu_weight(shares) <= v2.cpu_weight(shares + 1) <= 10000


def test_cpu_weight_meets_the_ends_and_the_defaults() -> None:
    found = [v2.cpu_weight(s) for s in (2, 1024, 262144)]
    assert found == [1, 100, 10000]


@given(st.integers(10, 999))
def test_io_weight_grows_with_weight(weight: int) -> None:
    assert 1 <= v2.io_weight(weight) < v2.io_weight(weight + 1) <= 10000


def test_io_weight_meets_the_ends() -> None:
    assert (v2.io_weight(10), v2.io_weight(1000)) == (1, 10000)


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        (CPU(quota=50000, period=200000), [("cpu.max", "50000 200000")]),
        (CPU(quota=50000), [("cpu.max", "50000 100000")]),
        (CPU(quota=-1), [("cpu.max", "max 100000")]),
        (CPU(period=200000), [("cpu.max", "max 200000")]),
        (CPU(quota=50, burst=20), [("cpu.max", "50 100000"), ("cpu.max.burst", "20")]),
        (CPU(shares=0), []),
        (CPU(shares=2), [("cpu.weight", "1")]),
        (CPU(shares=2, idle=1), [("cpu.idle", "1")]),
        (CPU(cpus="0,2", mems="0"), [("cpuset.cpus", "0,2"), ("cpuset.mems", "0")]),
    ],
)
def test_cpu(cpu: CPU, expected: list[tuple[str, str]]) -> None:
    assert plain(Resources(cpu=cpu)) == expected


def test_realtime_is_refused() -> None:
    with pytest.raises(StepError, match="realtimeRuntime"):
        v2.writes(Resources(cpu=CPU(realtime_runtime=1)), LAYOUT)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (Memory(limit=100), [("memory.max", "100")]),
        (Memory(limit=100, swap=250), [("memory.swap.max", "150"), ("memory.max", "100")]),
        (Memory(limit=100, swap=100), [("memory.swap.max", "0"), ("memory.max", "100")]),
        (Memory(limit=100, swap=-1), [("memory.swap.max", "max"), ("memory.max", "100")]),
        (Memory(limit=-1), [("memory.swap.max", "max"), ("memory.max", "max")]),
        (Memory(reservation=50), [("memory.low", "50")]),
    ],
)
def test_memory(memory: Memory, expected: list[tuple[str, str]]) -> None:
    assert plain(Resources(memory=memory)) == expected


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (Memory(swap=100), "without memory limit"),
        (Memory(limit=-1, swap=100), "without memory limit"),
        (Memory(limit=100, swap=99), "should be >= memory limit"),
    ],
)
def test_swap_that_contradicts_the_limit(memory: Memory, words: str) -> None:
    with pytest.raises(StepError, match=words):
        v2.writes(Resources(memory=memory), LAYOUT)


def test_only_a_real_swap_limit_needs_swap_accounting() -> None:
    def optional(swap: int) -> bool:
        found = v2.writes(Resources(memory=Memory(limit=100, swap=swap)), LAYOUT)
        return next(w.optional for w in found if w.file == "memory.swap.max")

    assert [optional(s) for s in (100, -1, 101)] == [True, True, False]


def test_phases() -> None:
    resources = Resources(
        memory=Memory(limit=100, swap=200, reservation=50),
        pids=Pids(5),
        cpu=CPU(shares=100),
        unified={"memory.high": "90", "io.latency": "8:0 target=1"},
    )
    late = {w.file for w in v2.writes(resources, LAYOUT) if w.phase is Phase.LATE}
    assert late == {"memory.max", "memory.swap.max", "memory.high", "pids.max"}


@pytest.mark.parametrize(("limit", "value"), [(-1, "max"), (0, "0"), (20, "20")])
def test_pids(limit: int, value: str) -> None:
    assert plain(Resources(pids=Pids(limit))) == [("pids.max", value)]


def test_block_io() -> None:
    io = BlockIO(
        weight=10,
        weight_device=(BlockIOWeightDevice(8, 0, weight=1000),),
        throttle_read_bps_device=(BlockIOThrottleDevice(8, 0, 1024),),
        throttle_write_iops_device=(BlockIOThrottleDevice(8, 16, 0),),
    )
    found = v2.writes(Resources(block_io=io), LAYOUT)
    assert [(w.file, w.value) for w in found] == [
        ("io.bfq.weight", "10"),
        ("io.bfq.weight", "8:0 1000"),
        ("io.max", "8:0 rbps=1024"),
        ("io.max", "8:16 wiops=max"),
    ]
    fallbacks = [w.otherwise and (w.otherwise.file, w.otherwise.value) for w in found[:2]]
    assert fallbacks == [("io.weight", "1"), ("io.weight", "8:0 10000")]


def test_huge_pages_and_rdma() -> None:
    resources = Resources(hugepage_limits=(HugepageLimit("1GB", 7),), rdma={"mlx": Rdma(1, 2)})
    assert plain(resources) == [
        ("hugetlb.1GB.rsvd.max", "7"),
        ("hugetlb.1GB.max", "7"),
        ("rdma.max", "mlx hca_handle=1 hca_object=2"),
    ]


@pytest.mark.parametrize(
    ("resources", "pointer"),
    [
        (Resources(block_io=BlockIO(leaf_weight=10)), "blockIO/leafWeight"),
        (Resources(network=Network(class_id=1)), "network"),
    ],
)
def test_what_v2_lacks_is_refused(resources: Resources, pointer: str) -> None:
    with pytest.raises(StepError, match=f"/linux/resources/{pointer}]"):
        v2.writes(resources, LAYOUT)


def test_unified_is_written_as_it_is_and_last() -> None:
    resources = Resources(
        pids=Pids(5),
        unified={"pids.max": "7", "cgroup.max.depth": "2", "io.max": "8:0 rbps=1\n8:1 rbps=2"},
    )
    assert plain(resources) == [
        ("pids.max", "5"),
        ("pids.max", "7"),
        ("cgroup.max.depth", "2"),
        ("io.max", "8:0 rbps=1"),
        ("io.max", "8:1 rbps=2"),
    ]


@pytest.mark.parametrize("key", ["../memory.max", "a/b.c", "", ".", "memory", "..x"])
def test_unified_keys_that_are_no_file(key: str) -> None:
    with pytest.raises(StepError, match="isn't the name of a file"):
        v2.writes(Resources(unified={key: "1"}), LAYOUT)


@pytest.mark.parametrize(
    "resources",
    [
        Resources(unified={"misc.max": "1"}),
        Resources(unified={"nonsense.max": "1"}),
    ],
)
def test_a_value_without_its_controller_is_an_error(resources: Resources) -> None:
    with pytest.raises(StepError, match="controller isn't available"):
        v2.writes(resources, LAYOUT)


def test_device_rules_that_deny_are_a_warning() -> None:
    denied = Resources(devices=(DeviceRule(False, access="rwm"),))
    assert "/linux/resources/devices" in v2.warnings(denied)[0]
    assert v2.warnings(Resources(devices=(DeviceRule(True, access="rwm"),))) == ()


def test_v1_only_memory_settings_are_warnings() -> None:
    memory = Memory(swappiness=10, disable_oom_killer=True, kernel=5)
    resources = Resources(memory=memory, devices=(DeviceRule(True, access="rwm"),))
    assert len(v2.warnings(resources)) == 3


def test_the_manager_chooses_by_mode() -> None:
    resources = Resources(pids=Pids(3))
    v1_layout = Layout(Mode.HYBRID, (Hierarchy(("pids",), "/p"),), LAYOUT.unified)
    assert manager.writes(resources, LAYOUT)[0].controller == "pids"
    with pytest.raises(StepError, match="memory controller isn't mounted"):
        manager.writes(Resources(memory=Memory(limit=1)), v1_layout)
    assert manager.writes(None, LAYOUT) == ()
