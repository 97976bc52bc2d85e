# SPDX-License-Identifier: GPL-3.0-or-later
"""Entering a container that runs, for exec: steps that the stub takes, in the host at first.

The interpreter never runs inside: the runtime writes the whole list and executes the stub, which
joins the namespaces, forks to be in the pid namespace, and becomes the program.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ocirt.cgroups import manager
from ocirt.cgroups.manager import CgroupPaths
from ocirt.errors import OcirtError
from ocirt.kernel import _linux
from ocirt.kernel import constants as k
from ocirt.kernel.affinity import EVERY, stay_here
from ocirt.kernel.stublist import Flag
from ocirt.parts import intelrdt
from ocirt.parts.identity import keyring_name
from ocirt.parts.scheduling import SetAffinity, cpu_mask, list_mask
from ocirt.parts.stdio import may_change_owner
from ocirt.parts.step import Action, Context, Side, Step
from ocirt.spec.model import Process, Rlimit
from ocirt.spec.names import RLIMITS

_NAMESPACES = {
    "user": k.CLONE_NEWUSER,
    "mnt": k.CLONE_NEWNS,
    "pid": k.CLONE_NEWPID,
    "net": k.CLONE_NEWNET,
    "ipc": k.CLONE_NEWIPC,
    "uts": k.CLONE_NEWUTS,
    "cgroup": k.CLONE_NEWCGROUP,
    "time": k.CLONE_NEWTIME,
}


def steps(
    process: Process,
    *,
    cgroup: CgroupPaths | None,
    report: int,
    pid_to: int,
    own_keyring: bool,
    exact_cgroup: bool,
) -> Iterator[Step]:
    """Yield the way into the container, up to where the program's credentials are taken on.

    cgroup is the container's, report the socket for errors, pid_to the pipe for the pid of the
    process inside; own_keyring says that the container has a session keyring, exact_cgroup that the
    caller chose the cgroup.
    Each descriptor is closed as soon as it isn't needed: inside, nothing of the host's stays open.
    """

    def stub(what: str, pointer: str, action: Action) -> Step:
        return Step(Side.STUB, what, pointer, action)

    yield stub("join the container's namespaces", "/linux/namespaces", Enter(report))
    yield stub("fork into the pid namespace", "/linux/namespaces", Fork(pid_to))
    affinity = process.exec_cpu_affinity
    if affinity is None:
        # Who passes on what a terminal says shall go where there is time.
        yield stub("run on the container's CPUs", "", LikeInit(cgroup, not process.terminal))
    elif affinity.initial:
        initial = SetAffinity(affinity.initial, "/process/execCPUAffinity/initial")
        yield stub("run on CPUs before the cgroup", initial.pointer, initial)
    yield stub("join the container's cgroup", "/linux/cgroupsPath", JoinCgroup(exact_cgroup))
    if affinity is not None and affinity.final:
        final = SetAffinity(affinity.final, "/process/execCPUAffinity/final")
        yield stub("run on CPUs in the cgroup", final.pointer, final)
    yield stub(f"go to {process.cwd}", "/process/cwd", GoTo(process.cwd))
    yield stub("start a session", "", StartSession(own_keyring))
    if process.terminal:
        yield stub("take the terminal", "/process/terminal", TakeTerminal())
    uid = process.user.uid
    yield stub(f"give stdio to user {uid}", "/process/user", GiveStdio(uid))
    if process.rlimits:
        yield stub("set rlimits", "/process/rlimits", SetRlimits(process.rlimits))


@dataclass(frozen=True, slots=True)
class Enter:
    """One setns(2) with init's pidfd for every namespace that isn't the runtime's own."""

    report: int

    def run(self, c: Context) -> None:
        c.stub.report_to(self.report)
        # It survived one exec; the next one is the program's.
        c.stub.syscall(_linux.SYS_fcntl, self.report, k.F_SETFD, k.FD_CLOEXEC)
        flags = different_namespaces(c.proc, c.init_pid)
        if flags:
            c.stub.syscall(_linux.SYS_setns, c.init_pidfd, flags, text="setns")
        c.stub.syscall(_linux.SYS_close, c.init_pidfd)


def different_namespaces(proc: int, pid: int) -> int:
    """Return the CLONE_NEW* flags of those namespaces of a process that aren't ours."""
    flags = 0
    for name, flag in _NAMESPACES.items():
        try:
            theirs = os.readlink(f"{pid}/ns/{name}", dir_fd=proc)
        except FileNotFoundError:
            continue  # a kernel without this type
        if theirs != os.readlink(f"self/ns/{name}", dir_fd=proc):
            flags |= flag
    return flags


@dataclass(frozen=True, slots=True)
class Fork:
    """Only a child is in the pid namespace that its parent joined (setns(2))."""

    pid_to: int

    def run(self, c: Context) -> None:
        c.stub.fork(self.pid_to, "fork into the container")
        c.stub.syscall(_linux.SYS_close, self.pid_to)


@dataclass(frozen=True, slots=True)
class LikeInit:
    """sched_setaffinity(2) to init's CPUs, wherever the caller was put; cgroup is the container's.

    Before the cgroup is joined: what becomes of it there is the kernel's decision (config.md). With
    stay runtime and stub are on one CPU up to here: they wait for each other, which takes longest
    from one CPU to another.
    """

    cgroup: CgroupPaths | None
    stay: bool

    def run(self, c: Context) -> None:
        ours = os.sched_getaffinity(0)
        try:
            theirs = os.sched_getaffinity(c.init_pid)
        except OSError:
            return  # it has just ended
        c.cpus = stay_here() if self.stay else b""
        _go_to(c, EVERY)
        if theirs == ours and c.cpus == EVERY:
            return  # neither is bound
        # Where init isn't bound either, the program gets more, as init, should the cpuset grow.
        mask = cpu_mask(theirs)
        if mask != _cpuset(self.cgroup):
            _go_to(c, mask)


def _go_to(c: Context, mask: bytes) -> None:
    call = _linux.SYS_sched_setaffinity
    c.stub.syscall(call, 0, len(mask), mask, flags=Flag.MAY_FAIL)


def _cpuset(paths: CgroupPaths | None) -> bytes:
    """Return a cgroup's CPUs as a mask, b"" if nobody knows."""
    try:
        cpus = manager.effective_cpus(paths) if paths else ""
    except OSError:
        return b""
    return list_mask(cpus, "/linux/cgroupsPath") if cpus else b""


@dataclass(frozen=True, slots=True)
class JoinCgroup:
    """Write "0" into descriptors that the runtime opened: the process that writes moves.

    exact says that the caller has named the cgroup; else it may be the one where init is now.
    """

    exact: bool

    def run(self, c: Context) -> None:
        cgroups = self._open(c.cgroup, c.init_pid) if c.cgroup is not None else ()
        itself = c.stub.place(b"0")
        for fd in (*cgroups, *intelrdt.open_tasks(c)):
            os.set_inheritable(fd, True)
            c.stub.syscall(_linux.SYS_write, fd, itself, 1, text="join the cgroup")
            c.stub.syscall(_linux.SYS_close, fd)
            c.inherited.append(fd)

    def _open(self, paths: manager.CgroupPaths, init: int) -> tuple[int, ...]:
        """Open for joining: v1's tasks (which don't wait for RCU), v2's cgroup.procs."""
        if paths.unified:
            place = paths.unified if self.exact else manager.home_of(paths, init)
            return (os.open(f"{place}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC),)
        attachment = manager.open_tasks(paths)
        return (*attachment.early, *attachment.late)


@dataclass(frozen=True, slots=True)
class OpenDirectory:
    """Find the working directory from the host, below the container's root, before anything runs.

    By its path a program inside could come to a descriptor of ours (CVE-2024-21626).
    """

    cwd: str

    def run(self, c: Context) -> None:
        # runc's words, here and below.
        if not self.cwd.startswith("/"):
            raise OcirtError(f"Cwd must be an absolute path, and {self.cwd!r} isn't one")
        try:
            c.cwd = c.root.open(self.cwd, os.O_PATH | os.O_DIRECTORY)
        except PermissionError:
            c.cwd = -1  # its user may be let in: see credentials.Chdir
        except OSError as e:
            raise OcirtError(f"{_no_way_to(self.cwd)}: {os.strerror(e.errno or 0).lower()}") from e


def _no_way_to(cwd: str) -> str:
    return f'chdir to cwd ("{cwd}") set in config.json failed'


@dataclass(frozen=True, slots=True)
class GoTo:
    """The container's root, which needn't be its mount namespace's, and the working directory."""

    cwd: str

    def run(self, c: Context) -> None:
        c.stub.syscall(_linux.SYS_fchdir, c.root.fd, text="enter the container's root")
        c.stub.syscall(_linux.SYS_chroot, b".\0", text="chroot to the container's root")
        c.stub.syscall(_linux.SYS_close, c.root.fd)
        if c.cwd >= 0:
            c.stub.syscall(_linux.SYS_fchdir, c.cwd, text=_no_way_to(self.cwd))
            c.stub.syscall(_linux.SYS_close, c.cwd)
            c.inherited.append(c.cwd)


@dataclass(frozen=True, slots=True)
class StartSession:
    """setsid(2), and the container's session keyring: joined by name, as the container's root.

    In a user namespace that was joined nobody is root before; it needn't have one.
    """

    own_keyring: bool

    def run(self, c: Context) -> None:
        c.stub.syscall(_linux.SYS_setsid, flags=Flag.MAY_FAIL)
        c.stub.syscall(_linux.SYS_setresgid, 0, 0, 0, flags=Flag.MAY_FAIL)
        c.stub.syscall(_linux.SYS_setresuid, 0, 0, 0, flags=Flag.MAY_FAIL)
        if self.own_keyring:
            name = os.fsencode(keyring_name(c)) + b"\0"
            join = k.KEYCTL_JOIN_SESSION_KEYRING
            c.stub.syscall(_linux.SYS_keyctl, join, name, flags=Flag.MAY_FAIL)


@dataclass(frozen=True, slots=True)
class TakeTerminal:
    """Make stdin the session's controlling terminal (TIOCSCTTY(2const))."""

    def run(self, c: Context) -> None:
        words = "make the terminal the controlling one"
        c.stub.syscall(_linux.SYS_ioctl, 0, k.TIOCSCTTY, 0, text=words)


@dataclass(frozen=True, slots=True)
class GiveStdio:
    """Give stdio to the program's user: a runtime without privilege can do that only in here."""

    uid: int

    def run(self, c: Context) -> None:
        for fd in (0,) if c.terminal >= 0 else (0, 1, 2):
            if c.terminal >= 0 or may_change_owner(fd):
                c.stub.syscall(_linux.SYS_fchown, fd, self.uid, -1, flags=Flag.MAY_FAIL)


@dataclass(frozen=True, slots=True)
class SetRlimits:
    """prlimit(2) of the process itself."""

    limits: tuple[Rlimit, ...]

    def run(self, c: Context) -> None:
        for limit in self.limits:
            number = RLIMITS[limit.type]
            values = struct.pack("=QQ", limit.soft, limit.hard)
            words = f"error setting rlimit type {number}"
            c.stub.syscall(_linux.SYS_prlimit64, 0, number, values, 0, text=words)
