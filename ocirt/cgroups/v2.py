# SPDX-License-Identifier: GPL-3.0-or-later
"""linux.resources as files of cgroup v2. Pure.

Sources: config-linux.md, Control groups; the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ocirt.cgroups.devices import policy
from ocirt.cgroups.layout import Layout
from ocirt.cgroups.resources import POINTER, Phase, Write, rdma_writes
from ocirt.errors import StepError
from ocirt.spec.model import CPU, BlockIO, HugepageLimit, Memory, Pids, Resources

_DEFAULT_PERIOD = 100_000  # microseconds, the kernel's

# Limits that bite at once; everything else may be in force while the container is set up.
_LATE = frozenset({"memory.max", "memory.high", "memory.swap.max", "pids.max"})


def writes(resources: Resources, layout: Layout) -> tuple[Write, ...]:
    """Return what to write, in order.

    Device rules aren't among it: see warnings(). Raises StepError for a value whose controller
    isn't available, or which v2 doesn't have.
    """
    wanted = tuple(_all(resources))
    available = layout.unified.controllers if layout.unified else ()
    for write in wanted:
        if write.controller not in available and write.controller != "cgroup":
            cause = f"cannot set {write.file}: the {write.controller} controller isn't available"
            raise StepError("cgroup", write.pointer, cause)
    return wanted


def warnings(resources: Resources) -> tuple[str, ...]:
    """Return a sentence for each part of resources that writes() leaves out."""
    found = []
    # The place for the eBPF program (BPF_CGROUP_DEVICE) that devices.policy() is to become.
    if not policy(resources.devices).denies_nothing:
        found.append(
            f"{POINTER}/devices: device rules aren't applied on cgroup v2 yet,"
            " the container may use every device node it has"
        )
    memory = resources.memory
    if memory:
        if memory.kernel or memory.kernel_tcp:
            found.append(f"{POINTER}/memory: kernel memory limits don't exist on cgroup v2")
        if memory.swappiness is not None and memory.swappiness >= 0:
            found.append(f"{POINTER}/memory/swappiness: doesn't exist on cgroup v2")
        if memory.disable_oom_killer:
            found.append(f"{POINTER}/memory/disableOOMKiller: doesn't exist on cgroup v2")
    return tuple(found)


def cpu_weight(shares: int) -> int:
    """Return cpu.weight (1..10000) for v1 cpu.shares (2..262144).

    Quadratic in the logarithm, so that the ends and the defaults (1024 is 100) all meet; the
    formula that runc, crun and systemd's users agreed on.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    exponent = (log * log + 125 * log) / 612.0 - 7.0 / 34.0
    return math.ceil(10**exponent)


def io_weight(weight: int) -> int:
    """Return io.weight (1..10000) for a blkio weight (10..1000)."""
    return 1 + (weight - 10) * 9999 // 990


def swap_max(memory: Memory) -> str | None:
    """Return memory.swap.max: v1's swap field counts memory and swap together. None: not given.

    Raises StepError if the two contradict each other.
    """
    limit, swap = memory.limit or 0, memory.swap or 0
    if swap == -1 or (limit == -1 and not swap):
        return "max"
    if not swap:
        return None
    pointer = f"{POINTER}/memory/swap"
    if limit <= 0:
        raise StepError("cgroup", pointer, "unable to set swap limit without memory limit")
    if swap < limit:
        raise StepError("cgroup", pointer, "memory+swap limit should be >= memory limit")
    return str(swap - limit)


def _all(resources: Resources) -> Iterator[Write]:
    if resources.network and (resources.network.class_id or resources.network.priorities):
        cause = "network classes and priorities don't exist on cgroup v2"
        raise StepError("cgroup", f"{POINTER}/network", cause)
    if resources.cpu:
        yield from _cpu(resources.cpu)
    if resources.memory:
        yield from _memory(resources.memory)
    if resources.pids:
        yield from _pids(resources.pids)
    if resources.block_io:
        yield from _io(resources.block_io)
    yield from _hugetlb(resources.hugepage_limits)
    yield from rdma_writes(resources.rdma)
    yield from _unified(resources.unified)


def _cpu(cpu: CPU) -> Iterator[Write]:
    at = f"{POINTER}/cpu"
    for value, field in (
        (cpu.realtime_period, "realtimePeriod"),
        (cpu.realtime_runtime, "realtimeRuntime"),
    ):
        if value:
            raise StepError("cgroup", f"{at}/{field}", "realtime limits don't exist on cgroup v2")
    if cpu.idle is not None:
        yield Write("cpu", "cpu.idle", str(cpu.idle), f"{at}/idle")
    if cpu.shares and not cpu.idle:
        yield Write("cpu", "cpu.weight", str(cpu_weight(cpu.shares)), f"{at}/shares")
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        pointer = f"{at}/quota" if cpu.quota else f"{at}/period"
        limit = f"{quota} {cpu.period or _DEFAULT_PERIOD}"
        yield Write("cpu", "cpu.max", limit, pointer, either_order=True)
    if cpu.burst is not None:
        yield Write(
            "cpu",
            "cpu.max.burst",
            str(cpu.burst),
            f"{at}/burst",
            optional=cpu.burst == 0,
            either_order=True,
        )
    if cpu.cpus:
        yield Write("cpuset", "cpuset.cpus", cpu.cpus, f"{at}/cpus")
    if cpu.mems:
        yield Write("cpuset", "cpuset.mems", cpu.mems, f"{at}/mems")


def _memory(memory: Memory) -> Iterator[Write]:
    at = f"{POINTER}/memory"
    swap = swap_max(memory)
    if swap is not None:
        # Without swap accounting there is nothing to allow or forbid.
        optional = swap in ("max", "0")
        yield _write("memory.swap.max", swap, f"{at}/swap", optional=optional)
    if memory.limit:
        yield _write("memory.max", _or_max(memory.limit), f"{at}/limit")
    if memory.reservation:
        yield _write("memory.low", _or_max(memory.reservation), f"{at}/reservation")


def _pids(pids: Pids) -> Iterator[Write]:
    if pids.limit is not None:
        yield _write("pids.max", _or_max(pids.limit), f"{POINTER}/pids/limit")


def _io(io: BlockIO) -> Iterator[Write]:
    at = f"{POINTER}/blockIO"
    if io.leaf_weight:
        raise StepError("cgroup", f"{at}/leafWeight", "leaf weights don't exist on cgroup v2")
    if io.weight:
        yield _io_weight("", io.weight, f"{at}/weight")
    for index, device in enumerate(io.weight_device):
        pointer = f"{at}/weightDevice/{index}"
        if device.leaf_weight:
            cause = "leaf weights don't exist on cgroup v2"
            raise StepError("cgroup", f"{pointer}/leafWeight", cause)
        if device.weight:
            prefix = f"{device.major}:{device.minor} "
            yield _io_weight(prefix, device.weight, f"{pointer}/weight")
    for devices, key, field in (
        (io.throttle_read_bps_device, "rbps", "throttleReadBpsDevice"),
        (io.throttle_write_bps_device, "wbps", "throttleWriteBpsDevice"),
        (io.throttle_read_iops_device, "riops", "throttleReadIOPSDevice"),
        (io.throttle_write_iops_device, "wiops", "throttleWriteIOPSDevice"),
    ):
        for index, limit in enumerate(devices):
            value = f"{limit.major}:{limit.minor} {key}={limit.rate or 'max'}"
            yield _write("io.max", value, f"{at}/{field}/{index}")


def _io_weight(prefix: str, weight: int, pointer: str) -> Write:
    cost = _write("io.weight", f"{prefix}{io_weight(weight)}", pointer)
    return Write("io", "io.bfq.weight", f"{prefix}{weight}", pointer, otherwise=cost)


def _hugetlb(limits: tuple[HugepageLimit, ...]) -> Iterator[Write]:
    """Both accountings, reservation first (kernel 5.7): page faults alone end in SIGBUS."""
    for index, limit in enumerate(limits):
        pointer = f"{POINTER}/hugepageLimits/{index}"
        size, value = limit.page_size, str(limit.limit)
        yield _write(f"hugetlb.{size}.rsvd.max", value, pointer, optional=True)
        yield _write(f"hugetlb.{size}.max", value, pointer)


def _unified(unified: dict[str, str]) -> Iterator[Write]:
    """Keys are files; a value of several lines is several writes, as the kernel reads one."""
    for key, value in unified.items():
        pointer = f"{POINTER}/unified/{key.replace('~', '~0').replace('/', '~1')}"
        if "/" in key or key.partition(".")[0] in ("", key):
            cause = f"{key!r} isn't the name of a file of cgroup v2"
            raise StepError("cgroup", pointer, cause)
        for line in value.splitlines() or [value]:
            yield _write(key, line, pointer)


def _write(file: str, value: str, pointer: str, *, optional: bool = False) -> Write:
    phase = Phase.LATE if file in _LATE else Phase.EARLY
    return Write(file.partition(".")[0], file, value, pointer, phase, optional)


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)
