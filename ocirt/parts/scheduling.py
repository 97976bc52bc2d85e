# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs when and where: scheduler, ioPriority, execCPUAffinity (config.md), memoryPolicy.

An action writes a system call into the stub's list: all of it is the process's own, and some of it
takes a privilege that the program may not have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel import _linux
from ocirt.kernel import constants as k
from ocirt.parts.step import Context
from ocirt.spec.model import IOPriority, MemoryPolicy, Scheduler
from ocirt.spec.names import MEMORY_POLICY_FLAGS, MEMORY_POLICY_MODES

# sched(7), linux/sched.h
_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# struct sched_attr (sched_setattr(2)), without the utilisation hints.
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")

_IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}

# More CPUs and nodes than any kernel is built for: a list is text from a file.
_LARGEST_NUMBER = 8191


@dataclass(frozen=True, slots=True)
class SetScheduler:
    """sched_setattr(2)."""

    scheduler: Scheduler

    def run(self, c: Context) -> None:
        s = self.scheduler
        flags = 0
        for name in s.flags:
            flags |= _SCHEDULER_FLAGS[name]
        attr = _SCHED_ATTR.pack(
            _SCHED_ATTR.size,
            _POLICIES[s.policy],
            flags,
            s.nice or 0,
            s.priority or 0,
            s.runtime or 0,
            s.deadline or 0,
            s.period or 0,
        )
        words = f"set the scheduler {s.policy} (/process/scheduler): sched_setattr"
        c.stub.syscall(_linux.SYS_sched_setattr, 0, attr, 0, text=words)


@dataclass(frozen=True, slots=True)
class SetIOPriority:
    """ioprio_set(2) of this process."""

    priority: IOPriority

    def run(self, c: Context) -> None:
        kind = _IOPRIO_CLASSES[self.priority.class_]
        value = kind << k.IOPRIO_CLASS_SHIFT | (self.priority.priority or 0)
        c.stub.syscall(
            _linux.SYS_ioprio_set, k.IOPRIO_WHO_PROCESS, 0, value, text="set the I/O priority"
        )


@dataclass(frozen=True, slots=True)
class SetAffinity:
    """sched_setaffinity(2) to a list as cpuset(7) writes it; pointer is where it is from."""

    cpus: str
    pointer: str

    def run(self, c: Context) -> None:
        mask = list_mask(self.cpus, self.pointer)
        words = f"run on the CPUs {self.cpus} ({self.pointer}): sched_setaffinity"
        c.stub.syscall(_linux.SYS_sched_setaffinity, 0, len(mask), mask, text=words)


@dataclass(frozen=True, slots=True)
class SetMemoryPolicy:
    """set_mempolicy(2)."""

    policy: MemoryPolicy

    def run(self, c: Context) -> None:
        p = self.policy
        mode = MEMORY_POLICY_MODES[p.mode or "MPOL_DEFAULT"]
        for name in p.flags:
            mode |= MEMORY_POLICY_FLAGS[name]
        words = f"set the memory policy {p.mode} (/linux/memoryPolicy): set_mempolicy"
        if not p.nodes:
            c.stub.syscall(_linux.SYS_set_mempolicy, mode, 0, 0, text=words)
            return
        mask = list_mask(p.nodes, "/linux/memoryPolicy/nodes")
        # The kernel takes one bit less than it is told.
        c.stub.syscall(_linux.SYS_set_mempolicy, mode, mask, 8 * len(mask) + 1, text=words)


def list_mask(text: str, pointer: str) -> bytes:
    """Return a list such as 0-3,7 (cpuset(7), "List format") as a bit mask of whole words.

    Raises OcirtError for what isn't one.
    """
    mask = 0
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        numbers = (first, last if dash else first)
        if not all(n.isascii() and n.isdecimal() and len(n) < 6 for n in numbers):
            raise OcirtError(f"{pointer}: {text!r} isn't a list such as 0-3,7")
        low, high = int(numbers[0]), int(numbers[1])
        if low > high or high > _LARGEST_NUMBER:
            raise OcirtError(
                f"{pointer}: {part!r} isn't a range of numbers up to {_LARGEST_NUMBER}"
            )
        mask |= (1 << high + 1) - (1 << low)
    return _words(mask)


def cpu_mask(cpus: Iterable[int]) -> bytes:
    """Return a set of CPUs as a bit mask of whole words."""
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return _words(mask)


def _words(mask: int) -> bytes:
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")
