# SPDX-License-Identifier: GPL-3.0-or-later
"""ocirt with a fault: `fault.py kill|fail SIDE-INDEX ARGS...` runs ocirt ARGS and interferes once.

kill: the runtime process gets SIGKILL just before the step of that index runs, whichever process
runs it. kill-after: just after. fail: the step raises OSError(EIO) instead of running. Steps are
counted over all sides, from 0; an index past the end changes nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

from ocirt.cli.main import main
from ocirt.parts.step import Side, Step
from ocirt.runtime.execute import Execution

_run_step = Execution._run_step
_walk = Execution._walk


def interfere(mode: str, index: int) -> None:
    """Replace the executor's step by one that does what mode says at the index."""
    runtime = os.getpid()
    numbers: dict[int, int] = {}

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
        _run_step(self, step)
        if hit and mode == "kill-after":
            os.kill(runtime, signal.SIGKILL)

    Execution._walk = walk  # type: ignore[method-assign, assignment]
    Execution._run_step = run_step  # type: ignore[method-assign]


class _Fail:
    def run(self, c: object) -> None:
        """Fail as a broken disk would."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))


if __name__ == "__main__":
    interfere(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
