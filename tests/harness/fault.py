# SPDX-License-Identifier: GPL-3.0-or-later
"""ocirt with a fault: `fault.py MODE INDEX ARGS...` runs ocirt ARGS and interferes once.

kill: the runtime process gets SIGKILL just before the step of that index runs, whichever process
runs it. kill-after: just after. kill-child: the process that runs it, if that isn't the runtime.
fail: the step raises OSError(EIO) instead of running. Steps are counted over all sides, from 0; an
index past the end changes nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

from ocirt.cli.main import main
from ocirt.parts.step import Side, Step
from ocirt.runtime.execute import Execution

_run_step = Execution._run_step
_walk = Execution._walk


def interfere(mode: str, index: int) -> None:
    """Replace the executor's step by one that does what mode says at the index."""
    runtime = os.getpid()
    numbers: dict[int, int] = {}
    killer = start_killer(runtime) if mode == "kill-child" else -1

    def walk(self: Execution, steps: tuple[Step, ...], turn_of: Side) -> None:
        for step in steps:
            numbers.setdefault(id(step), len(numbers))
        _walk(self, steps, turn_of)

    def run_step(self: Execution, step: Step) -> None:
        hit = numbers[id(step)] == index
        if hit and mode == "fail":
            step = Step(step.side, step.what, step.pointer, _Fail())
        if hit and mode == "kill":
            os.kill(runtime, signal.SIGKILL)
        if hit and mode == "kill-child" and os.getpid() != runtime:
            os.write(killer, b"x")
            signal.pause()
        _run_step(self, step)
        if hit and mode == "kill-after":
            os.kill(runtime, signal.SIGKILL)

    Execution._walk = walk  # type: ignore[method-assign, assignment]
    Execution._run_step = run_step  # type: ignore[method-assign]


def start_killer(runtime: int) -> int:
    """Start a process that kills the runtime's children when a byte is written to the result.

    Init can't do that itself: it is immune to signals from its own pid namespace.
    """
    wait, begin = os.pipe()
    if os.fork():
        os.close(wait)
        return begin
    os.close(begin)
    if os.read(wait, 1):
        for pid in Path(f"/proc/{runtime}/task/{runtime}/children").read_text().split():
            if int(pid) != os.getpid():
                os.kill(int(pid), signal.SIGKILL)
    os._exit(0)


class _Fail:
    def run(self, c: object) -> None:
        """Fail as a broken disk would."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))


if __name__ == "__main__":
    interfere(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
