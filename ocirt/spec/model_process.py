# SPDX-License-Identifier: GPL-3.0-or-later
"""process of config.json as typed data (config.md, "Process"); exec gets one of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConsoleSize:
    """Rows and columns of the terminal."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class User:
    """Ids in the container's user namespace; umask None leaves it to the runtime."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Names by set; an absent set is empty."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A resource limit; the greatest 64-bit number means unlimited."""

    type: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Scheduler:
    """sched_setattr(2); times in nanoseconds."""

    policy: str
    nice: int | None = None
    priority: int | None = None
    flags: tuple[str, ...] = ()
    runtime: int | None = None
    deadline: int | None = None
    period: int | None = None


@dataclass(frozen=True, slots=True)
class IOPriority:
    """ioprio_set(2)."""

    class_: str
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class ExecCPUAffinity:
    """CPU lists for exec, before and after it has joined the cgroup."""

    initial: str | None = None
    final: str | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """The container's program and how it is to run."""

    cwd: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = field(default_factory=User)
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str | None = None
    selinux_label: str | None = None
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = None

    @classmethod
    def from_json(cls, d: Json) -> Process:
        """Build from config.json's process, or from the file that exec gets."""
        get = d.get
        return cls(
            cwd=d["cwd"],
            args=tuple(get("args", ())),
            env=tuple(get("env", ())),
            terminal=get("terminal", False),
            console_size=_console_size(d["consoleSize"]) if "consoleSize" in d else None,
            user=_user(get("user", {})),
            capabilities=_capabilities(d["capabilities"]) if "capabilities" in d else None,
            rlimits=tuple(Rlimit(r["type"], r["soft"], r["hard"]) for r in get("rlimits", ())),
            no_new_privileges=get("noNewPrivileges", False),
            oom_score_adj=get("oomScoreAdj"),
            apparmor_profile=get("apparmorProfile"),
            selinux_label=get("selinuxLabel"),
            scheduler=_scheduler(d["scheduler"]) if "scheduler" in d else None,
            io_priority=_io_priority(d["ioPriority"]) if "ioPriority" in d else None,
            exec_cpu_affinity=_affinity(d["execCPUAffinity"]) if "execCPUAffinity" in d else None,
        )


def _console_size(d: Json) -> ConsoleSize:
    return ConsoleSize(d["height"], d["width"])


def _user(d: Json) -> User:
    return User(
        d.get("uid", 0),
        d.get("gid", 0),
        d.get("umask"),
        tuple(d.get("additionalGids", ())),
        d.get("username"),
    )


def _capabilities(d: Json) -> Capabilities:
    return Capabilities(
        tuple(d.get("bounding", ())),
        tuple(d.get("effective", ())),
        tuple(d.get("inheritable", ())),
        tuple(d.get("permitted", ())),
        tuple(d.get("ambient", ())),
    )


def _scheduler(d: Json) -> Scheduler:
    return Scheduler(
        d["policy"],
        d.get("nice"),
        d.get("priority"),
        tuple(d.get("flags", ())),
        d.get("runtime"),
        d.get("deadline"),
        d.get("period"),
    )


def _io_priority(d: Json) -> IOPriority:
    return IOPriority(d["class"], d.get("priority"))


def _affinity(d: Json) -> ExecCPUAffinity:
    return ExecCPUAffinity(d.get("initial"), d.get("final"))
