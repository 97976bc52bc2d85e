# SPDX-License-Identifier: GPL-3.0-or-later
"""From the waiting stub to the container's program: user, groups, capabilities, filter, execve.

execve(2) recomputes capabilities, so whatever sets them has to be the process that executes the
program: the stub. An action here runs in init and writes its system calls into the stub's list.
"""

from __future__ import annotations

import os
import signal
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ocirt.kernel import _linux
from ocirt.kernel import constants as k
from ocirt.kernel.files import read_all, read_at
from ocirt.kernel.stublist import Flag
from ocirt.parts import lsm
from ocirt.parts.capabilities import CapabilitySets, DropBounding, SetCapabilities
from ocirt.parts.scheduling import SetIOPriority, SetMemoryPolicy, SetScheduler
from ocirt.parts.seccomp import LoadFilter
from ocirt.parts.step import Action, Context, Side, Step
from ocirt.spec.known_annotations import KEEP_GROUPS
from ocirt.spec.model import Config, Process, User

# umask(2) when config.json says nothing: what runc and crun give, and what images expect.
_DEFAULT_UMASK = 0o022

# Bytes of /etc/passwd that are read: an image may make it endless.
_LONGEST_PASSWD = 1 << 20

_PERSONALITIES = {"LINUX": k.PER_LINUX, "LINUX32": k.PER_LINUX32}


def steps(
    config: Config,
    process: Process,
    *,
    available: int,
    last_cap: int,
    first_free_fd: int,
    dies_with_parent: bool = False,
) -> Iterator[Step]:
    """Yield what the stub does between `start` and the program, in the order that works.

    Without noNewPrivileges loading a filter takes CAP_SYS_ADMIN, so it comes before the ids and
    capabilities; with it the filter comes last, and need not allow what the stub does. available
    is the mask of capabilities that can be given.
    """
    sets = CapabilitySets.of(process.capabilities, available)
    seccomp = config.linux.seccomp
    load = seccomp and Step(
        Side.STUB, "load the seccomp filter", "/linux/seccomp", LoadFilter(seccomp)
    )

    def stub(what: str, pointer: str, action: Action) -> Step:
        return Step(Side.STUB, what, pointer, action)

    # First, as a filter needn't allow it.
    yield stub("leave no descriptors but the program's", "", CloseOthers(first_free_fd))
    yield stub("set the umask", "/process/user/umask", SetUmask(process.user.umask))
    if process.scheduler is not None:
        scheduler = SetScheduler(process.scheduler)
        yield stub("set the scheduler", "/process/scheduler", scheduler)
    if process.io_priority is not None:
        priority = SetIOPriority(process.io_priority)
        yield stub("set the I/O priority", "/process/ioPriority", priority)
    if config.linux.personality is not None:
        domain = config.linux.personality.domain or "LINUX"
        yield stub("set the personality", "/linux/personality", SetPersonality(domain))
    if config.linux.memory_policy is not None:
        policy = SetMemoryPolicy(config.linux.memory_policy)
        yield stub("set the memory policy", "/linux/memoryPolicy", policy)
    yield from lsm.stub_steps(process)
    if process.no_new_privileges:
        yield stub("set no_new_privs", "/process/noNewPrivileges", SetNoNewPrivileges())
    elif load:
        yield load
    yield stub(
        "drop capabilities from the bounding set",
        "/process/capabilities/bounding",
        DropBounding(sets, last_cap),
    )
    yield stub(
        f"become user {process.user.uid}, group {process.user.gid}",
        "/process/user",
        SetUser(process.user, keep_groups=config.annotations.get(KEEP_GROUPS) == "1"),
    )
    yield stub(
        f"enter {process.cwd} as that user, if root could not", "/process/cwd", Chdir(process.cwd)
    )
    yield stub("set capabilities", "/process/capabilities", SetCapabilities(sets))
    if dies_with_parent:
        yield stub("end with the runtime", "", DieWithParent())
    if process.no_new_privileges and load:
        yield load
    yield stub(f"execute {process.args[0]}", "/process/args", Execute(process))


@dataclass(frozen=True, slots=True)
class CloseOthers:
    """close_range(2) at the execve: nothing of ours is open then, but what an engine leaked is."""

    first: int

    def run(self, c: Context) -> None:
        c.stub.syscall(
            _linux.SYS_close_range,
            self.first,
            k.FD_MAX,
            k.CLOSE_RANGE_CLOEXEC,
            flags=Flag.MAY_FAIL,
        )


@dataclass(frozen=True, slots=True)
class SetUmask:
    """umask(2)."""

    umask: int | None

    def run(self, c: Context) -> None:
        c.stub.syscall(_linux.SYS_umask, _DEFAULT_UMASK if self.umask is None else self.umask)


@dataclass(frozen=True, slots=True)
class SetPersonality:
    """personality(2)."""

    domain: str

    def run(self, c: Context) -> None:
        domain = _PERSONALITIES[self.domain]
        c.stub.syscall(_linux.SYS_personality, domain, text="set the personality")


@dataclass(frozen=True, slots=True)
class SetNoNewPrivileges:
    """PR_SET_NO_NEW_PRIVS(2const)."""

    def run(self, c: Context) -> None:
        c.stub.syscall(_linux.SYS_prctl, k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, text="set no_new_privs")


@dataclass(frozen=True, slots=True)
class DieWithParent:
    """PR_SET_PDEATHSIG(2const): whoever kills `run` has killed what it ran.

    After the user is set, which resets it.
    """

    def run(self, c: Context) -> None:
        c.stub.syscall(_linux.SYS_prctl, k.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class SetUser:
    """Groups, then group, then user; permitted capabilities are kept for what comes after.

    keep_groups leaves those of ocirt's caller (podman's --group-add keep-groups).
    """

    user: User
    keep_groups: bool

    def run(self, c: Context) -> None:
        uid, gid, groups = self.user.uid, self.user.gid, self.user.additional_gids
        c.stub.syscall(_linux.SYS_prctl, k.PR_SET_KEEPCAPS, 1, 0, 0, 0, text="set keepcaps")
        # Denied in a user namespace made without privilege; asking for groups there is an error.
        inside = c.init_pid or "self"  # init itself writes this, or exec, from outside
        denied = read_at(c.proc, f"{inside}/setgroups").strip() == "deny"
        if not self.keep_groups and (groups or not denied):
            ids = struct.pack(f"={len(groups)}I", *groups)
            c.stub.syscall(_linux.SYS_setgroups, len(groups), ids, text=f"setgroups {groups}")
        c.stub.syscall(_linux.SYS_setresgid, gid, gid, gid, text=f"setgid to {gid}")
        c.stub.syscall(_linux.SYS_setresuid, uid, uid, uid, text=f"setuid to {uid}")


@dataclass(frozen=True, slots=True)
class Chdir:
    """chdir(2) where root may not enter the directory (a root-squashing NFS) but the user may."""

    cwd: str

    def run(self, c: Context) -> None:
        if c.cwd < 0:
            path = os.fsencode(self.cwd) + b"\0"
            c.stub.syscall(_linux.SYS_chdir, path, text=f"chdir to cwd {self.cwd}")


@dataclass(frozen=True, slots=True)
class Execute:
    """execve(2) of the program that FindExecutable found."""

    process: Process

    def run(self, c: Context) -> None:
        c.stub.syscall(
            _linux.SYS_execve,
            os.fsencode(c.executable) + b"\0",
            c.stub.place_strings([os.fsencode(a) for a in self.process.args]),
            c.stub.place_strings(environment(c, self.process)),
            text=f'exec: "{c.executable}"',
            # Where there is a filter, that was said before it was loaded.
            flags=Flag.NONE if c.config.linux.seccomp else Flag.SILENT,
        )


def environment(c: Context, process: Process) -> list[bytes]:
    """Return process.env as envp: of duplicates the last counts, as in runc; HOME is added."""
    seen: dict[bytes, bytes] = {}
    for entry in process.env:
        words = os.fsencode(entry)
        seen[words.partition(b"=")[0]] = words
    if not seen.get(b"HOME", b"HOME=").partition(b"=")[2]:
        seen[b"HOME"] = b"HOME=" + os.fsencode(home(c, process.user.uid))
    return list(seen.values())


def home(c: Context, uid: int) -> str:
    """Return a user's home directory by the container's /etc/passwd (passwd(5)), or "/"."""
    for line in _passwd(c).split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == b"%d" % uid and fields[5].startswith(b"/"):
            return os.fsdecode(fields[5])
    return "/"


def _passwd(c: Context) -> bytes:
    """Return the container's /etc/passwd, empty if it isn't a readable file."""
    try:
        found = c.root.open("/etc/passwd")
    except OSError:
        return b""
    try:
        # Looked at before it is opened: opening a device of the image's could have effects.
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return b""
        fd = os.open(f"self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=c.proc)
    except OSError:
        return b""
    finally:
        os.close(found)
    try:
        return read_all(fd, _LONGEST_PASSWD)
    finally:
        os.close(fd)
