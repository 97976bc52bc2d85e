# SPDX-License-Identifier: GPL-3.0-or-later
"""apparmorProfile and selinuxLabel (config.md, "Linux Process"): the label of the program's exec.

A label for the next execve(2) would be used up by the stub's own, so the stub asks for it, through
a procfs of the host that was verified and that the program doesn't get (CVE-2025-52881).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel import _linux
from ocirt.kernel import constants as k
from ocirt.kernel.files import read_at
from ocirt.parts.step import Context, Side, Step
from ocirt.spec.model import Process

# apparmor(7), proc_pid_attr(5)
_APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"
_SELINUX_ENABLED = "/sys/fs/selinux/enforce"


def early_steps(process: Process) -> Iterator[Step]:
    """Yield what finds out early that a label can't be had."""
    if process.apparmor_profile:
        pointer = "/process/apparmorProfile"
        yield Step(
            Side.RUNTIME, "look for AppArmor", pointer, LookForAppArmor(process.apparmor_profile)
        )
    if process.selinux_label:
        pointer = "/process/selinuxLabel"
        yield Step(Side.RUNTIME, "look for SELinux", pointer, LookForSelinux(process.selinux_label))


def stub_steps(process: Process) -> Iterator[Step]:
    """Yield the stub's part, before no_new_privs, which AppArmor wouldn't forgive."""
    if profile := process.apparmor_profile:
        label = SetExecLabel("attr/apparmor/exec", f"exec {profile}")
        words = f"ask for the AppArmor profile {profile}"
        yield Step(Side.STUB, words, "/process/apparmorProfile", label)
    if process.selinux_label:
        label = SetExecLabel("attr/exec", process.selinux_label)
        words = f"ask for the SELinux label {process.selinux_label}"
        yield Step(Side.STUB, words, "/process/selinuxLabel", label)
    if wants_label(process):
        yield Step(Side.STUB, "leave the host's procfs", "", CloseProcfs())


def wants_label(process: Process) -> bool:
    """Whether the stub needs a procfs."""
    return bool(process.apparmor_profile or process.selinux_label)


@dataclass(frozen=True, slots=True)
class LookForAppArmor:
    """Raise OcirtError where AppArmor isn't enabled."""

    profile: str

    def run(self, c: Context) -> None:
        try:
            enabled = read_at(k.AT_FDCWD, _APPARMOR_ENABLED).startswith("Y")
        except FileNotFoundError:
            enabled = False
        if not enabled:
            raise OcirtError(f"AppArmor isn't enabled on this host; take {self.profile!r} out")


@dataclass(frozen=True, slots=True)
class LookForSelinux:
    """Raise OcirtError where SELinux isn't enabled."""

    label: str

    def run(self, c: Context) -> None:
        if not os.path.exists(_SELINUX_ENABLED):
            raise OcirtError(f"SELinux isn't enabled on this host; take {self.label!r} out")


@dataclass(frozen=True, slots=True)
class SetExecLabel:
    """Write a label for the next execve(2) to a file of /proc/self (proc_pid_attr(5))."""

    file: str
    label: str

    def run(self, c: Context) -> None:
        words = f"write {self.label!r} to /proc/self/{self.file}"
        path = os.fsencode(f"self/{self.file}") + b"\0"
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        kept = c.stub.keep(_linux.SYS_openat, c.stub_procfs, path, flags, text=words)
        label = os.fsencode(self.label)
        c.stub.take(_linux.SYS_write, kept, label, len(label), text=words)
        c.stub.take(_linux.SYS_close, kept, text=words)


@dataclass(frozen=True, slots=True)
class CloseProcfs:
    """Close the procfs: a working directory that is looked up later must not be in it."""

    def run(self, c: Context) -> None:
        c.stub.syscall(_linux.SYS_close, c.stub_procfs)


def hand_procfs_on(c: Context, procfs: int) -> None:
    """Have the stub keep a procfs descriptor to itself: hooks and the program don't get it."""
    c.stub_procfs = procfs
    c.stub.syscall(_linux.SYS_fcntl, procfs, k.F_SETFD, k.FD_CLOEXEC)
