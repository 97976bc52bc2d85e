# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of other invocations: found by pid and start time, held by pidfd."""

from __future__ import annotations

import errno
import os
import select
import signal
from dataclasses import dataclass
from types import TracebackType

_PF_EXITING = 0x4  # linux/sched.h; proc_pid_stat(5), field 9


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks after boot (proc_pid_stat(5), field 22).

    Raises OSError (FileNotFoundError, ProcessLookupError) when there is none.
    """
    return _stat(pid)[2]


def _stat(pid: int) -> tuple[bytes, int, int]:
    """Return a process's state, its flags (PF_*) and its start time."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    # The second field is the program's name in brackets, which may hold anything.
    fields = text[text.rindex(b")") + 2 :].split(None, 20)
    return fields[0], int(fields[6]), int(fields[19])


def is_alive(pid: int, start: int) -> bool:
    """Whether the process of that start time still runs; one that is ending doesn't."""
    if not pid:
        return False
    try:
        status, flags, began = _stat(pid)
    except OSError:
        return False
    # A dying process has closed its descriptors before it becomes a zombie, but not before it
    # has this flag.
    return began == start and status not in b"ZX" and not flags & _PF_EXITING


@dataclass(slots=True)
class Process:
    """A process that can't be mistaken for another of the same number (pidfd_open(2))."""

    pid: int
    fd: int

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)

    def kill(self, number: int) -> bool:
        """Send a signal (pidfd_send_signal(2)); False if the process has ended."""
        try:
            signal.pidfd_send_signal(self.fd, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until the process has ended, as a zombie at least; False when time is up."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def open_process(pid: int, start: int) -> Process | None:
    """Open the process of that pid and start time; None if it has ended."""
    if not pid:
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError as e:
        # EINVAL, on older kernels: it has ended, but others still call a session or group by its
        # number.
        if e.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        return None
    if not is_alive(pid, start):
        os.close(fd)
        return None
    return Process(pid, fd)
