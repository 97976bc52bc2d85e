# SPDX-License-Identifier: GPL-3.0-or-later
"""linux.* of config.json as typed data (config-linux.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ocirt.spec.model_resources import Resources
from ocirt.spec.model_seccomp import Seccomp

Json = Mapping[str, Any]


class NamespaceType(StrEnum):
    """config-linux.md, "Namespaces"."""

    PID = "pid"
    NETWORK = "network"
    MOUNT = "mount"
    IPC = "ipc"
    UTS = "uts"
    USER = "user"
    CGROUP = "cgroup"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace to make, or, with a path, to join."""

    type: NamespaceType
    path: str | None = None


@dataclass(frozen=True, slots=True)
class IDMapping:
    """A range of ids of a user namespace: size of them, from container_id on at host_id on."""

    container_id: int
    host_id: int
    size: int

    @classmethod
    def list_from_json(cls, items: Any) -> tuple[IDMapping, ...]:
        """Build the mappings of an array, which may be absent (None)."""
        return tuple(cls(m["containerID"], m["hostID"], m["size"]) for m in items or ())


@dataclass(frozen=True, slots=True)
class TimeOffset:
    """An offset of a clock in a time namespace: seconds and nanoseconds."""

    secs: int = 0
    nanosecs: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """A device node (config-linux.md, "Devices"); type is c, b, u or p."""

    type: str
    path: str
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network device to move into the container, perhaps under another name."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class IntelRdt:
    """config-linux.md, "IntelRdt"."""

    clos_id: str | None = None
    schemata: tuple[str, ...] = ()
    l3_cache_schema: str | None = None
    mem_bw_schema: str | None = None
    enable_monitoring: bool = False


@dataclass(frozen=True, slots=True)
class Personality:
    """config-linux.md, "Personality"."""

    domain: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """config-linux.md, "Memory Policy"."""

    mode: str | None = None
    nodes: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Linux:
    """config-linux.md as a whole."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    time_offsets: dict[str, TimeOffset] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    net_devices: dict[str, NetDevice] = field(default_factory=dict)
    cgroups_path: str | None = None
    resources: Resources | None = None
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    sysctl: dict[str, str] = field(default_factory=dict)
    seccomp: Seccomp | None = None
    rootfs_propagation: str | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str | None = None
    personality: Personality | None = None

    @classmethod
    def from_json(cls, d: Json) -> Linux:
        """Build from config.json's linux."""
        get = d.get
        return cls(
            namespaces=tuple(
                Namespace(NamespaceType(n["type"]), n.get("path")) for n in get("namespaces", ())
            ),
            uid_mappings=IDMapping.list_from_json(get("uidMappings")),
            gid_mappings=IDMapping.list_from_json(get("gidMappings")),
            time_offsets={
                clock: TimeOffset(o.get("secs", 0), o.get("nanosecs", 0))
                for clock, o in get("timeOffsets", {}).items()
            },
            devices=tuple(_device(v) for v in get("devices", ())),
            net_devices={k: NetDevice(v.get("name")) for k, v in get("netDevices", {}).items()},
            cgroups_path=get("cgroupsPath"),
            resources=Resources.from_json(d["resources"]) if "resources" in d else None,
            intel_rdt=_intel_rdt(d["intelRdt"]) if "intelRdt" in d else None,
            memory_policy=_memory_policy(d["memoryPolicy"]) if "memoryPolicy" in d else None,
            sysctl=dict(get("sysctl", {})),
            seccomp=Seccomp.from_json(d["seccomp"]) if "seccomp" in d else None,
            rootfs_propagation=get("rootfsPropagation") or None,
            masked_paths=tuple(get("maskedPaths", ())),
            readonly_paths=tuple(get("readonlyPaths", ())),
            mount_label=get("mountLabel"),
            personality=_personality(d["personality"]) if "personality" in d else None,
        )


def _device(d: Json) -> Device:
    get = d.get
    return Device(
        d["type"],
        d["path"],
        get("major"),
        get("minor"),
        get("fileMode"),
        get("uid"),
        get("gid"),
    )


def _intel_rdt(d: Json) -> IntelRdt:
    return IntelRdt(
        d.get("closID"),
        tuple(d.get("schemata", ())),
        d.get("l3CacheSchema"),
        d.get("memBwSchema"),
        d.get("enableMonitoring", False),
    )


def _memory_policy(d: Json) -> MemoryPolicy:
    return MemoryPolicy(d.get("mode"), d.get("nodes"), tuple(d.get("flags", ())))


def _personality(d: Json) -> Personality:
    return Personality(d.get("domain"), tuple(d.get("flags", ())))
