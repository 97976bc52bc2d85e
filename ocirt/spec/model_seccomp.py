# SPDX-License-Identifier: GPL-3.0-or-later
"""linux.seccomp of config.json as typed data (config-linux.md, "Seccomp")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SeccompArg:
    """A condition on an argument of a system call."""

    index: int
    value: int
    op: str
    value_two: int | None = None


@dataclass(frozen=True, slots=True)
class SeccompSyscall:
    """A rule: what happens to the named system calls, under conditions."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArg, ...] = ()


@dataclass(frozen=True, slots=True)
class Seccomp:
    """A profile. flags None: config.json has none, not even an empty list."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: tuple[SeccompSyscall, ...] = ()

    @property
    def notifies(self) -> bool:
        """Whether an agent is asked about some system calls (SCMP_ACT_NOTIFY)."""
        return any(call.action == "SCMP_ACT_NOTIFY" for call in self.syscalls)

    @classmethod
    def from_json(cls, d: Json) -> Seccomp:
        """Build from config.json's linux.seccomp."""
        return cls(
            d["defaultAction"],
            d.get("defaultErrnoRet"),
            tuple(d.get("architectures", ())),
            tuple(d["flags"]) if "flags" in d else None,
            d.get("listenerPath"),
            d.get("listenerMetadata"),
            tuple(_syscall(s) for s in d.get("syscalls", ())),
        )


def _syscall(d: Json) -> SeccompSyscall:
    args = tuple(
        SeccompArg(a["index"], a["value"], a["op"], a.get("valueTwo")) for a in d.get("args", ())
    )
    return SeccompSyscall(tuple(d["names"]), d["action"], d.get("errnoRet"), args)
