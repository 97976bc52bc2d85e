# SPDX-License-Identifier: GPL-3.0-or-later
"""config.json as typed data: the Linux part of runtime-spec 1.3.

Attribute names are the JSON names in snake_case. What is absent is None, () or {}. from_json()
runs on every create, after validation: it may rely on valid input, and is plain code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocirt.spec.model_linux import (
    Device,
    IDMapping,
    IntelRdt,
    Linux,
    MemoryPolicy,
    Namespace,
    NamespaceType,
    NetDevice,
    Personality,
    TimeOffset,
)
from ocirt.spec.model_process import (
    Capabilities,
    ConsoleSize,
    ExecCPUAffinity,
    IOPriority,
    Process,
    Rlimit,
    Scheduler,
    User,
)
from ocirt.spec.model_resources import (
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
from ocirt.spec.model_seccomp import (
    Seccomp,
    SeccompArg,
    SeccompSyscall,
)

__all__ = [
    "CPU",
    "BlockIO",
    "BlockIOThrottleDevice",
    "BlockIOWeightDevice",
    "Capabilities",
    "Config",
    "ConsoleSize",
    "Device",
    "DeviceRule",
    "ExecCPUAffinity",
    "Hook",
    "Hooks",
    "HugepageLimit",
    "IDMapping",
    "IOPriority",
    "IntelRdt",
    "InterfacePriority",
    "Linux",
    "Memory",
    "MemoryPolicy",
    "Mount",
    "Namespace",
    "NamespaceType",
    "NetDevice",
    "Network",
    "Personality",
    "Pids",
    "Process",
    "Rdma",
    "Resources",
    "Rlimit",
    "Root",
    "Scheduler",
    "Seccomp",
    "SeccompArg",
    "SeccompSyscall",
    "TimeOffset",
    "User",
]

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Root:
    """config.md, "Root"; path may be relative to the bundle."""

    path: str
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """config.md, "Mounts"."""

    destination: str
    source: str | None = None
    type: str | None = None
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """config.md, "POSIX-platform Hooks"; timeout in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """The six kinds, each in the order given."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()

    def in_create(self) -> bool:
        """Tell whether programs of others run while the container is created."""
        return bool(self.prestart or self.create_runtime or self.create_container)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config.json."""

    oci_version: str
    root: Root | None = None
    mounts: tuple[Mount, ...] = ()
    process: Process | None = None
    hostname: str | None = None
    domainname: str | None = None
    hooks: Hooks = field(default_factory=Hooks)
    annotations: dict[str, str] = field(default_factory=dict)
    linux: Linux = field(default_factory=Linux)

    @classmethod
    def from_json(cls, d: Json) -> Config:
        """Build from a valid document."""
        get = d.get
        root = get("root")
        return cls(
            oci_version=d["ociVersion"],
            root=Root(root["path"], root.get("readonly", False)) if root else None,
            mounts=tuple(_mount(m) for m in get("mounts", ())),
            process=Process.from_json(d["process"]) if "process" in d else None,
            hostname=get("hostname"),
            domainname=get("domainname"),
            hooks=_hooks(d["hooks"]) if "hooks" in d else Hooks(),
            annotations=dict(get("annotations", {})),
            linux=Linux.from_json(d["linux"]) if "linux" in d else Linux(),
        )


def _mount(d: Json) -> Mount:
    get = d.get
    return Mount(
        d["destination"],
        get("source"),
        get("type"),
        tuple(get("options", ())),
        IDMapping.list_from_json(get("uidMappings")),
        IDMapping.list_from_json(get("gidMappings")),
    )


def _hooks(d: Json) -> Hooks:
    def hooks(kind: str) -> tuple[Hook, ...]:
        return tuple(
            Hook(h["path"], tuple(h.get("args", ())), tuple(h.get("env", ())), h.get("timeout"))
            for h in d.get(kind, ())
        )

    return Hooks(
        hooks("prestart"),
        hooks("createRuntime"),
        hooks("createContainer"),
        hooks("startContainer"),
        hooks("poststart"),
        hooks("poststop"),
    )
