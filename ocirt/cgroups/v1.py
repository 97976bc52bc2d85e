# SPDX-License-Identifier: GPL-3.0-or-later
"""linux.resources as files of the v1 controllers. Pure.

Sources: config-linux.md, Control groups; the kernel's Documentation/admin-guide/cgroup-v1.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ocirt.cgroups.devices import policy
from ocirt.cgroups.layout import Layout
from ocirt.cgroups.resources import POINTER, Phase, Write, rdma_writes
from ocirt.errors import StepError
from ocirt.spec.model import (
    CPU,
    BlockIO,
    DeviceRule,
    HugepageLimit,
    Memory,
    Network,
    Pids,
    Resources,
)


def writes(resources: Resources, layout: Layout, *, devices: bool = True) -> tuple[Write, ...]:
    """Return what to write, in order.

    devices=False leaves the device rules as they are. Raises StepError for a value whose
    controller isn't mounted, or which v1 can't express.
    """
    if resources.unified:
        keys = ", ".join(resources.unified)
        cause = f"{keys}: unified needs cgroup v2, the host has v1"
        raise StepError("cgroup", f"{POINTER}/unified", cause)
    mounted = {key for hierarchy in layout.hierarchies for key in hierarchy.keys}
    wanted = tuple(_all(resources))
    for write in wanted:
        if write.controller not in mounted:
            raise _not_mounted(write.controller, write.pointer)
    if not devices:
        return wanted
    if "devices" in mounted:
        return (*_devices(resources.devices), *wanted)
    rules = policy(resources.devices)
    if resources.devices and not rules.denies_nothing:
        raise _not_mounted("devices", rules.pointer)
    return wanted


def warnings(resources: Resources) -> tuple[str, ...]:
    """Return a sentence for each part of resources that writes() leaves out."""
    memory = resources.memory
    if memory and (memory.kernel or memory.kernel_tcp):
        return (f"{POINTER}/memory: kernel memory limits are ignored, the kernel dropped them",)
    return ()


def _not_mounted(controller: str, pointer: str) -> StepError:
    cause = (
        f"cannot set {controller} limit: container could not join or create cgroup"
        f" (the {controller} controller isn't mounted)"
    )
    return StepError("cgroup", pointer, cause)


def _all(resources: Resources) -> Iterator[Write]:
    if resources.cpu:
        yield from _cpu(resources.cpu)
        yield from _cpuset(resources.cpu)
    if resources.memory:
        yield from _memory(resources.memory)
    if resources.pids:
        yield from _pids(resources.pids)
    if resources.block_io:
        yield from _blkio(resources.block_io)
    yield from _hugetlb(resources.hugepage_limits)
    if resources.network:
        yield from _network(resources.network)
    yield from rdma_writes(resources.rdma)


# Every container of an engine has the same rules, which the image has met when it was built.
@lru_cache(maxsize=32)
def _devices(rules: tuple[DeviceRule, ...]) -> tuple[Write, ...]:
    """One rule a write; the default comes first, since it empties the list."""
    wanted = policy(rules)
    default, exception = "devices.deny", "devices.allow"
    if wanted.allow_all:
        default, exception = exception, default
    return (
        Write("devices", default, "a", wanted.pointer),
        *(
            Write("devices", exception, f"{grant.node} {grant.access}", grant.pointer)
            for grant in wanted.exceptions
        ),
    )


def _cpu(cpu: CPU) -> Iterator[Write]:
    at = f"{POINTER}/cpu"

    def write(file: str, value: int, field: str, *, optional: bool = False) -> Write:
        # Quota, period and burst bound each other, so the right order depends on the old values.
        return Write("cpu", file, str(value), f"{at}/{field}", optional=optional, either_order=True)

    if cpu.idle is not None:
        yield Write("cpu", "cpu.idle", str(cpu.idle), f"{at}/idle")
    if cpu.shares and not cpu.idle:
        yield Write("cpu", "cpu.shares", str(cpu.shares), f"{at}/shares")
    if cpu.realtime_period:
        yield write("cpu.rt_period_us", cpu.realtime_period, "realtimePeriod")
    if cpu.realtime_runtime:
        yield write("cpu.rt_runtime_us", cpu.realtime_runtime, "realtimeRuntime")
    if cpu.period:
        yield write("cpu.cfs_period_us", cpu.period, "period")
    if cpu.quota:
        yield write("cpu.cfs_quota_us", cpu.quota, "quota")
    if cpu.burst is not None:
        yield write("cpu.cfs_burst_us", cpu.burst, "burst", optional=cpu.burst == 0)


def _cpuset(cpu: CPU) -> Iterator[Write]:
    if cpu.cpus:
        yield Write("cpuset", "cpuset.cpus", cpu.cpus, f"{POINTER}/cpu/cpus")
    if cpu.mems:
        yield Write("cpuset", "cpuset.mems", cpu.mems, f"{POINTER}/cpu/mems")


def _memory(memory: Memory) -> Iterator[Write]:
    at = f"{POINTER}/memory"

    def write(file: str, value: int, field: str) -> Write:
        return Write("memory", f"memory.{file}", str(value), f"{at}/{field}")

    if memory.reservation:
        yield write("soft_limit_in_bytes", memory.reservation, "reservation")
    if memory.swappiness is not None and memory.swappiness >= 0:
        yield write("swappiness", memory.swappiness, "swappiness")
    if memory.disable_oom_killer:
        yield write("oom_control", 1, "disableOOMKiller")
    yield from _memory_limits(memory)


def _memory_limits(memory: Memory) -> Iterator[Write]:
    """memory+swap may never be below memory: raising begins with memsw, lowering with memory."""
    swap = memory.swap
    if memory.limit == -1 and not swap:
        swap = -1  # unlimited memory with limited memory+swap isn't what anyone means
    limit_file, swap_file = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    both = []
    if memory.limit:
        pointer = f"{POINTER}/memory/limit"
        value = str(memory.limit)
        both.append(
            Write("memory", limit_file, value, pointer, Phase.LATE, either_order=bool(swap))
        )
    if swap:
        pointer = f"{POINTER}/memory/swap"
        both.append(
            Write(
                "memory",
                swap_file,
                str(swap),
                pointer,
                Phase.LATE,
                optional=swap == -1,
                either_order=bool(memory.limit),
            )
        )
    yield from reversed(both) if swap == -1 else both


def _pids(pids: Pids) -> Iterator[Write]:
    if pids.limit is not None:
        value = "max" if pids.limit < 0 else str(pids.limit)
        yield Write("pids", "pids.max", value, f"{POINTER}/pids/limit", Phase.LATE)


def _blkio(io: BlockIO) -> Iterator[Write]:
    at = f"{POINTER}/blockIO"
    if io.weight:
        yield _weight("weight", str(io.weight), f"{at}/weight")
    if io.leaf_weight:
        yield Write("blkio", "blkio.leaf_weight", str(io.leaf_weight), f"{at}/leafWeight")
    for index, device in enumerate(io.weight_device):
        name = f"{device.major}:{device.minor}"
        pointer = f"{at}/weightDevice/{index}"
        if device.weight:
            yield _weight("weight_device", f"{name} {device.weight}", f"{pointer}/weight")
        if device.leaf_weight:
            value = f"{name} {device.leaf_weight}"
            yield Write("blkio", "blkio.leaf_weight_device", value, f"{pointer}/leafWeight")
    for devices, file, field in (
        (io.throttle_read_bps_device, "read_bps", "throttleReadBpsDevice"),
        (io.throttle_write_bps_device, "write_bps", "throttleWriteBpsDevice"),
        (io.throttle_read_iops_device, "read_iops", "throttleReadIOPSDevice"),
        (io.throttle_write_iops_device, "write_iops", "throttleWriteIOPSDevice"),
    ):
        for index, limit in enumerate(devices):
            value = f"{limit.major}:{limit.minor} {limit.rate}"
            pointer = f"{at}/{field}/{index}"
            yield Write("blkio", f"blkio.throttle.{file}_device", value, pointer)


def _weight(file: str, value: str, pointer: str) -> Write:
    """BFQ's file, or that of CFQ, which kernel 5.0 dropped."""
    cfq = Write("blkio", f"blkio.{file}", value, pointer)
    return Write("blkio", f"blkio.bfq.{file}", value, pointer, otherwise=cfq)


def _hugetlb(limits: tuple[HugepageLimit, ...]) -> Iterator[Write]:
    """Both accountings, reservation first (kernel 5.7): page faults alone end in SIGBUS."""
    for index, limit in enumerate(limits):
        pointer = f"{POINTER}/hugepageLimits/{index}"
        size, value = limit.page_size, str(limit.limit)
        rsvd = f"hugetlb.{size}.rsvd.limit_in_bytes"
        yield Write("hugetlb", rsvd, value, pointer, optional=True)
        yield Write("hugetlb", f"hugetlb.{size}.limit_in_bytes", value, pointer)


def _network(network: Network) -> Iterator[Write]:
    at = f"{POINTER}/network"
    if network.class_id:
        yield Write("net_cls", "net_cls.classid", str(network.class_id), f"{at}/classID")
    for index, priority in enumerate(network.priorities):
        value = f"{priority.name} {priority.priority}"
        yield Write("net_prio", "net_prio.ifpriomap", value, f"{at}/priorities/{index}")
