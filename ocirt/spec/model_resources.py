# SPDX-License-Identifier: GPL-3.0-or-later
"""linux.resources of config.json as typed data (config-linux.md, "Control groups")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """An entry of the device list; type a, b or c, None and absent numbers mean any."""

    allow: bool
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    access: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Limits in bytes, -1 for none."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


@dataclass(frozen=True, slots=True)
class CPU:
    """Times in microseconds, shares relative, cpus and mems as lists such as 0-3,7."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: int | None = None


@dataclass(frozen=True, slots=True)
class Pids:
    """The greatest number of tasks, -1 for no limit."""

    limit: int


@dataclass(frozen=True, slots=True)
class BlockIOWeightDevice:
    """A weight for one device."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


@dataclass(frozen=True, slots=True)
class BlockIOThrottleDevice:
    """A rate for one device: bytes or operations per second."""

    major: int
    minor: int
    rate: int = 0


@dataclass(frozen=True, slots=True)
class BlockIO:
    """Weights and throttles of block devices."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[BlockIOWeightDevice, ...] = ()
    throttle_read_bps_device: tuple[BlockIOThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[BlockIOThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[BlockIOThrottleDevice, ...] = ()
    throttle_write_iops_device: tuple[BlockIOThrottleDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class HugepageLimit:
    """A limit in bytes for one page size such as 2MB."""

    page_size: str
    limit: int


@dataclass(frozen=True, slots=True)
class InterfacePriority:
    """A priority for one network interface."""

    name: str
    priority: int


@dataclass(frozen=True, slots=True)
class Network:
    """net_cls and net_prio."""

    class_id: int | None = None
    priorities: tuple[InterfacePriority, ...] = ()


@dataclass(frozen=True, slots=True)
class Rdma:
    """Limits of one RDMA device."""

    hca_handles: int | None = None
    hca_objects: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """linux.resources as a whole, and what `update` gets."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = None
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: Network | None = None
    rdma: dict[str, Rdma] = field(default_factory=dict)
    unified: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, d: Json) -> Resources:
        """Build from config.json's linux.resources."""
        return cls(
            devices=tuple(
                DeviceRule(
                    r["allow"], r.get("type"), r.get("major"), r.get("minor"), r.get("access")
                )
                for r in d.get("devices", ())
            ),
            memory=_memory(d["memory"]) if "memory" in d else None,
            cpu=_cpu(d["cpu"]) if "cpu" in d else None,
            pids=Pids(d["pids"]["limit"]) if "pids" in d else None,
            block_io=_block_io(d["blockIO"]) if "blockIO" in d else None,
            hugepage_limits=tuple(
                HugepageLimit(h["pageSize"], h["limit"]) for h in d.get("hugepageLimits", ())
            ),
            network=_network(d["network"]) if "network" in d else None,
            rdma={
                k: Rdma(v.get("hcaHandles"), v.get("hcaObjects"))
                for k, v in d.get("rdma", {}).items()
            },
            unified=dict(d.get("unified", {})),
        )


def _memory(d: Json) -> Memory:
    get = d.get
    return Memory(
        get("limit"),
        get("reservation"),
        get("swap"),
        get("kernel"),
        get("kernelTCP"),
        get("swappiness"),
        get("disableOOMKiller"),
        get("useHierarchy"),
        get("checkBeforeUpdate"),
    )


def _cpu(d: Json) -> CPU:
    get = d.get
    return CPU(
        get("shares"),
        get("quota"),
        get("burst"),
        get("period"),
        get("realtimeRuntime"),
        get("realtimePeriod"),
        get("cpus"),
        get("mems"),
        get("idle"),
    )


def _block_io(d: Json) -> BlockIO:
    return BlockIO(
        d.get("weight"),
        d.get("leafWeight"),
        tuple(
            BlockIOWeightDevice(w["major"], w["minor"], w.get("weight"), w.get("leafWeight"))
            for w in d.get("weightDevice", ())
        ),
        _throttles(d.get("throttleReadBpsDevice")),
        _throttles(d.get("throttleWriteBpsDevice")),
        _throttles(d.get("throttleReadIOPSDevice")),
        _throttles(d.get("throttleWriteIOPSDevice")),
    )


def _throttles(items: Any) -> tuple[BlockIOThrottleDevice, ...]:
    return tuple(
        BlockIOThrottleDevice(t["major"], t["minor"], t.get("rate", 0)) for t in items or ()
    )


def _network(d: Json) -> Network:
    priorities = tuple(InterfacePriority(p["name"], p["priority"]) for p in d.get("priorities", ()))
    return Network(d.get("classID"), priorities)
