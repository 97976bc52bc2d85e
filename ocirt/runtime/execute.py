# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a plan: every process walks the same list, does its own steps, and waits for the others.

The steps run strictly in the list's order. Where the side changes, the process whose turn ends
says so on the channel. A clone in the list makes a new process that goes on with the next step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ocirt.errors import NeedsPlainPythonError, OcirtError, StepError
from ocirt.parts.process import CloneInit, CloneJoiner
from ocirt.parts.step import Context, Side, Step, Undo, Undoable
from ocirt.runtime.channel import Channel, Message, News

_CLONED: dict[type, Side] = {CloneInit: Side.INIT, CloneJoiner: Side.JOINER}


class ChildError(OcirtError):
    """A step in the joiner or in init failed: the sentence it sent, and the step's pointer."""

    def __init__(self, text: str, pointer: str = "") -> None:
        super().__init__(text)
        self.pointer = pointer


@dataclass(slots=True)
class Execution:
    """One run of a plan, as one process sees it.

    note writes an undo record before its step runs; observe gets each step of this process with
    its begin and end in seconds of the monotonic clock (None: nobody wants to know).
    """

    context: Context
    ours: Channel
    theirs: Channel
    note: Callable[[Undo], None]
    observe: Callable[[str, str, float, float], None] | None = None
    hooks_ran: bool = False  # hooks of the runtime's side, which poststop hooks may have to answer
    _expecting_birth: bool = False

    def run(self, steps: Sequence[Step]) -> None:
        """Run the plan. Returns in the runtime alone; the children end, or become the stub.

        Raises OcirtError in the runtime, whichever side failed.
        """
        try:
            self._walk(steps)
        except BaseException as e:
            # A child must never unwind into its parent's clean-up.
            if self.context.side is not Side.RUNTIME:
                self._die(e)
            raise
        if self.context.side is not Side.RUNTIME:
            os._exit(1)

    def _walk(self, steps: Sequence[Step]) -> None:
        before = Side.RUNTIME
        for step in steps:
            if step.side is not before:
                self._hand_over(before, step.side)
            if isinstance(step.action, CloneInit) and step.side is Side.JOINER:
                self._expecting_birth = True
            if step.side is self.context.side:
                self._run_step(step)
            # Who was just cloned goes on without being told.
            before = _CLONED.get(type(step.action), step.side)

    def _hand_over(self, before: Side, after: Side) -> None:
        if self.context.side is before:
            self._channel.send(News.TURN)
        elif self.context.side is after:
            self._wait_for_turn()

    @property
    def _channel(self) -> Channel:
        return self.ours if self.context.side is Side.RUNTIME else self.theirs

    def _wait_for_turn(self) -> None:
        if self.context.side is not Side.RUNTIME:
            if self._channel.receive().news is not News.TURN:
                os._exit(1)  # the runtime is gone, and with it the container
            return
        ours = False
        # Init may be ready sooner than the joiner has said whom it cloned.
        while not ours or self._expecting_birth:
            message = self._channel.receive()
            ours = ours or message.news is News.TURN
            self.handle(message)

    def handle(self, message: Message) -> None:
        """Deal with what a child says besides that it is our turn. Raises OcirtError."""
        if message.news is News.BORN:
            self._expecting_birth = False
            pid = message.data["pid"]
            self.context.born(pid, os.pidfd_open(pid))
        elif message.news is News.WARN:
            self.context.warn(message.data["text"])
        elif message.news is News.TRACE and self.observe is not None:
            data = message.data
            self.observe(data["side"], data["what"], data["began"], data["ended"])
        elif message.news is News.ERROR:
            raise ChildError(message.data["text"], message.data["pointer"])
        elif message.news is News.CLOSED:
            raise ChildError("the container's init died while it was being set up")

    def _run_step(self, step: Step) -> None:
        side = self.context.side
        began = time.monotonic() if self.observe is not None else 0.0
        try:
            if isinstance(step.action, Undoable):
                self.note(step.action.undo(self.context))
            step.action.run(self.context)
        except (OcirtError, OSError) as e:
            raise as_step_error(step, e) from e
        if isinstance(step.action, CloneInit | CloneJoiner):
            # Each process keeps its own end, or nobody would notice the other's death.
            (self.theirs if self.context.side is Side.RUNTIME else self.ours).close()
        if step.side is Side.RUNTIME and step.pointer.startswith("/hooks/"):
            self.hooks_ran = True
        if self.observe is not None and self.context.side is side:
            ended = time.monotonic()
            if side is Side.RUNTIME:
                self.observe(side, step.what, began, ended)
            else:
                data = {"side": side, "what": step.what, "began": began, "ended": ended}
                self.theirs.send(News.TRACE, **data)

    def _die(self, error: BaseException) -> NoReturn:
        pointer = error.pointer if isinstance(error, StepError) else ""
        text = str(error) if isinstance(error, OcirtError) else f"internal error: {error!r}"
        try:
            self.theirs.send(News.ERROR, text=text, pointer=pointer)
        finally:
            os._exit(1)


def as_step_error(step: Step, error: OcirtError | OSError) -> OcirtError:
    """Return an exception as a sentence that names the step and its place in config.json."""
    if isinstance(error, StepError | NeedsPlainPythonError):
        return error
    cause = str(error) if isinstance(error, OcirtError) else error
    # Engines look for these words at the beginning of a sentence.
    if isinstance(error, OcirtError) and str(error).startswith("exec: "):
        return error
    return StepError(step.what, step.pointer, cause)
