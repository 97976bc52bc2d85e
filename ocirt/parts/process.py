# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes that take part: cloning the joiner and init, and turning init into the stub."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import prctl

from ocirt.errors import OcirtError, describe
from ocirt.kernel import unix
from ocirt.kernel.affinity import go_anywhere
from ocirt.kernel.constants import (
    CLONE_INTO_CGROUP,
    CLONE_PARENT,
    MOUNT_ATTR_RDONLY,
)
from ocirt.kernel.mounts import detached_tmpfs, mount_setattr
from ocirt.kernel.process import clone3, sealed_memfd
from ocirt.kernel.signals import ALL, SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from ocirt.parts.lsm import hand_procfs_on, wants_label
from ocirt.parts.stdio import close_on_exec_from
from ocirt.parts.step import Context, Side, Step

# Read here, so that the pre-initialised executable has it without the package beside it.
_STUB = (Path(__file__).parent.parent / "kernel/stub").read_bytes()
_STUB_NAME = "ocirt-stub"
# As a memfd, and as the file of a tmpfs that is mounted nowhere (proc_pid_exe(5)).
_STUB_LINKS = (f"/memfd:{_STUB_NAME} (deleted)", f"/{_STUB_NAME}")


@dataclass(frozen=True, slots=True)
class CloneJoiner:
    """Fork the child that joins namespaces and then clones init as its own sibling."""

    def run(self, c: Context) -> None:
        pid, pidfd = _clone(c, Side.JOINER, 0, -1)
        if pid:
            c.init_pid, c.init_pidfd = pid, pidfd


@dataclass(frozen=True, slots=True)
class CloneInit:
    """Make init, with its new namespaces, by one clone3(2).

    As the joiner's sibling where there is one (CLONE_PARENT), so that the runtime, or `run`, is
    its parent in any case. shared: it is to share the runtime's memory, so that none is copied.
    """

    flags: int
    shared: bool = False

    def run(self, c: Context) -> None:
        from_joiner = c.side is Side.JOINER
        flags = self.flags | (CLONE_PARENT if from_joiner else 0)
        # The joiner may have become somebody whom the host's cgroups don't obey.
        into = c.attachment.into if c.attachment is not None and not from_joiner else -1
        flags |= CLONE_INTO_CGROUP if into >= 0 else 0
        if self.shared:
            pid, pidfd = c.share(flags, into)
        else:
            pid, pidfd = _clone(c, Side.INIT, flags, into)
        if pid:
            c.born(pid, pidfd)


def _clone(c: Context, child: Side, flags: int, cgroup: int) -> tuple[int, int]:
    """clone3(2), and tell the child who it is before any signal can interrupt it."""
    before = pthread_sigmask(SIG_BLOCK, ALL)
    try:
        pid, pidfd = clone3(flags, cgroup=cgroup)
        if not pid:
            c.side = child
            c.init_pid = 0
            # Should the runtime die, so does this process: it isn't anybody's container yet.
            prctl.set_pdeathsig(signal.SIGKILL)
        return pid, pidfd
    finally:
        pthread_sigmask(SIG_SETMASK, before)


@dataclass(frozen=True, slots=True)
class HideFromContainer:
    """Become non-dumpable: nobody in the container's namespaces may trace us or read our /proc."""

    def run(self, c: Context) -> None:
        prctl.set_dumpable(0)


@dataclass(frozen=True, slots=True)
class PrepareStub:
    """Make the file that init becomes, while the host can still be reached."""

    def run(self, c: Context) -> None:
        c.stub_program = stub_file()


def stub_file() -> int:
    """Return a descriptor of the stub's program, to execute.

    A copy in a sealed memfd: what a container finds in /proc/PID/exe is no file of the host. Where
    the kernel forbids executable memfds (vm.memfd_noexec=2) it is the only file of a tmpfs that is
    mounted nowhere, and read-only.
    """
    try:
        return sealed_memfd(_STUB_NAME, _STUB, executable=True)
    except PermissionError:
        return _file_in_a_tmpfs(_STUB)


def is_stub(pid: int) -> bool:
    """Tell whether a process executes the stub, or what calls itself so. Raises OSError."""
    return os.readlink(f"/proc/{pid}/exe") in _STUB_LINKS


def _file_in_a_tmpfs(content: bytes) -> int:
    tree = detached_tmpfs()
    try:
        fd = os.open(_STUB_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o555, dir_fd=tree)
        os.write(fd, content)
        os.close(fd)
        mount_setattr(tree, 0, attr_set=MOUNT_ATTR_RDONLY)
        return os.open(_STUB_NAME, os.O_PATH | os.O_CLOEXEC, dir_fd=tree)
    finally:
        os.close(tree)


@dataclass(frozen=True, slots=True)
class ConnectPidfdSocket:
    """Connect while nothing is made yet: whoever wants init's pidfd has to listen by now."""

    path: str

    def run(self, c: Context) -> None:
        c.pidfd_socket = unix.connect(self.path).detach()


@dataclass(frozen=True, slots=True)
class SendPidfd:
    """Send init's pidfd, with the word that runc sends."""

    def run(self, c: Context) -> None:
        with socket.socket(fileno=c.pidfd_socket) as sock:
            c.pidfd_socket = -1
            unix.send_descriptor(sock, b"standard", c.init_pidfd)


def send_pidfd(path: str, words: bytes, pidfd: int) -> None:
    """Send a pidfd to the socket at a path, and close it. Raises OcirtError."""
    try:
        with unix.connect(path) as sock:
            unix.send_descriptor(sock, words, pidfd)
    except OSError as e:
        raise OcirtError(f"--pidfd-socket: {describe(e)}") from None
    finally:
        os.close(pidfd)


@dataclass(frozen=True, slots=True)
class WaitForStart:
    """The stub waits on the socket in the state directory until `start` says "go"."""

    def run(self, c: Context) -> None:
        c.stub.wait(c.listener)


@dataclass(frozen=True, slots=True)
class BecomeStub:
    """Write the stub's list and execute it: init is now a few kilobytes that wait for start.

    Everything of the runtime's is closed by this exec, with two exceptions that the stub closes
    itself: the list and the socket. first_free_fd is the first descriptor that isn't preserved;
    in the foreground init goes on dying with the runtime.
    """

    first_free_fd: int
    steps: Sequence[Step]
    foreground: bool = False

    def run(self, c: Context) -> None:
        close_on_exec_from(self.first_free_fd)
        c.listener = _move_up(c.listener, self.first_free_fd)
        process = c.config.process
        if process is not None and wants_label(process):
            hand_procfs_on(c, _move_up(c.proc, self.first_free_fd))
        for step in self.steps:
            step.action.run(c)
        content = sealed_memfd("ocirt-list", c.stub.encode(), executable=False)
        content = _move_up(content, self.first_free_fd)
        pthread_sigmask(SIG_SETMASK, ())
        go_anywhere(c.cpus)
        if not self.foreground:
            # From here on init outlives the runtime; its pid is in the journal.
            prctl.set_pdeathsig(0)
        os.execve(c.stub_program, [b"%d" % content], {})


def _move_up(fd: int, first: int) -> int:
    """Return a copy of a descriptor at first or above that survives an exec."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD, first)
