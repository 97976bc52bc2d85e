# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits that belong to the process: rlimits and oomScoreAdj (config.md, "Process")."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocirt.kernel.constants import AT_FDCWD
from ocirt.kernel.files import read_at, write_at
from ocirt.kernel.process import prlimit
from ocirt.parts.step import Context
from ocirt.spec.model import Rlimit
from ocirt.spec.names import RLIMITS


@dataclass(frozen=True, slots=True)
class SetRlimit:
    """prlimit(2) by the runtime: init may have no privilege over the host's limits."""

    limit: Rlimit

    def run(self, c: Context) -> None:
        number = RLIMITS[self.limit.type]
        try:
            prlimit(c.init_pid, number, self.limit.soft, self.limit.hard)
        except OSError as e:
            if e.errno != errno.EPERM:
                raise
            # runc's words, which engines show; then what to do.
            raise OSError(
                e.errno,
                f"error setting rlimit type {number}: a hard limit can be raised only with"
                " CAP_SYS_RESOURCE; ask for less",
            ) from None


@dataclass(frozen=True, slots=True)
class SetOomScoreAdj:
    """oomScoreAdj (proc_pid_oom_score_adj(5)), written from outside: init is not dumpable."""

    value: int
    rootless: bool

    def run(self, c: Context) -> None:
        try:
            write_at(AT_FDCWD, f"/proc/{c.init_pid}/oom_score_adj", str(self.value))
        except PermissionError:
            if not self.rootless:
                raise
            c.warn(f"oomScoreAdj {self.value} can't be set without privilege; left as it is")


@contextmanager
def oom_score_adj(proc: int, value: int | None) -> Iterator[None]:
    """Have this process's own oom_score_adj at value, which a child made meanwhile inherits.

    proc is a procfs of the host; None changes nothing. Raises OSError.
    """
    name = "self/oom_score_adj"
    before = read_at(proc, name).strip() if value is not None else ""
    if value is None or before == str(value):
        yield
        return
    write_at(proc, name, str(value))
    try:
        yield
    finally:
        write_at(proc, name, before)
