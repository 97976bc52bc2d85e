# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a plan: every process walks the same list, does its own steps, and waits for the others.

The steps run strictly in the list's order. Where the side changes, the process whose turn ends
says so on the channel. A clone in the list makes a new process that goes on with the next step of
its side, when it is told.

Where init shares the runtime's memory (kernel/_linux.c: turn()), giving the turn away and sleeping
until it comes back is one call: meanwhile the interpreter is the other's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from ocirt.errors import NeedsPlainPythonError, OcirtError, StepError
from ocirt.kernel.affinity import go_anywhere, stay_here
from ocirt.kernel.process import clone_shared, last_words, turn
from ocirt.kernel.signals import (
    ALL,
    ENDING,
    SIG_BLOCK,
    SIG_IGN,
    SIG_SETMASK,
    getsignal,
    mask_of,
    pthread_sigmask,
    signalfd,
)
from ocirt.parts.process import CloneInit, CloneJoiner
from ocirt.parts.step import Context, Side, Step, Undo
from ocirt.runtime.channel import TURN, Channel, Message, News

Observer = Callable[[str, str, float, float], None]
_CLONES = (CloneJoiner, CloneInit)


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
    observe: Observer | None = None
    _shared: bool = False  # runtime and init are two processes in one memory
    _answer: Message | None = None  # there, what came back with the turn
    _signals: int = -1  # there, the runtime's signalfd(2) of those that end us
    _signal_mask: int = 0
    _expecting_birth: bool = False

    def run(self, steps: Sequence[Step], turn_of: Side = Side.RUNTIME) -> None:
        """Run the plan. Returns in the runtime alone; the children end, or become the stub.

        Raises OcirtError in the runtime, whichever side failed.
        """
        try:
            self._walk(steps, turn_of)
        except BaseException as e:
            # A child must never unwind into its parent's clean-up.
            if self.context.side is not Side.RUNTIME:
                self._die(e)
            raise
        if self.context.side is not Side.RUNTIME:
            os._exit(1)

    def hear_out(self) -> None:
        """Handle all that init says until its channel closes. Raises OcirtError."""
        while (message := self._receive()).news is not News.CLOSED:
            self.handle(message)
        self.leave_cpu()

    def leave_cpu(self) -> None:
        """Run wherever we may again, and all that we start: no memory is shared any more."""
        go_anywhere(self.context.cpus)
        self.context.cpus = b""

    def close(self) -> None:
        """Close what is open between the processes."""
        self.ours.close()
        self.theirs.close()
        if self._signals >= 0:
            os.close(self._signals)
            self._signals = -1

    def _walk(self, steps: Sequence[Step], before: Side) -> None:
        side = self.context.side
        for index, step in enumerate(steps):
            if step.side is not before:
                self._hand_over(before, step.side)
                before = step.side
            # Every clone leaves a process to take back.
            if step.undo and type(step.action) in _CLONES:
                self._run_clone(step, steps[index + 1 :])
                side = self.context.side
                # The joiner ends when it has cloned init, which goes on without being told.
                if before is Side.JOINER:
                    before = Side.INIT
            elif before is side:
                self._run_step(step)

    def _run_clone(self, step: Step, rest: Sequence[Step]) -> None:
        if isinstance(step.action, CloneInit):
            self.context.share = partial(self._share, rest)
            self._expecting_birth = step.side is Side.JOINER
        if step.side is not self.context.side:
            return
        self._run_step(step)
        if not self._shared:
            # Each process keeps its own end, or nobody would notice the other's death.
            (self.theirs if self.context.side is Side.RUNTIME else self.ours).close()

    def _hand_over(self, before: Side, after: Side) -> None:
        side = self.context.side
        if side is after:
            self._wait_for_turn()
        elif side is not before:
            return
        elif not self._shared:
            self._channel.send(News.TURN)
        elif side is Side.RUNTIME:
            pidfd = self.context.init_pidfd
            packet = turn(self.ours.fd, TURN, pidfd, self._signals, self._signal_mask)
            self._answer = Message.decode(packet)
        else:
            self._answer = Message.decode(turn(self.theirs.fd, TURN))

    def _share(self, rest: Sequence[Step], flags: int, cgroup: int) -> tuple[int, int]:
        """Clone init as a process that shares our memory; returns pid and pidfd.

        It goes on with the rest of the steps, and with a context of its own: descriptors are its.
        """
        # Two CPUs with one memory interrupt each other for each change of its mappings, and one of
        # them always sleeps. Hooks are others' programs: they are not to be bound.
        if not self.context.config.hooks.in_create():
            self.context.cpus = stay_here()
        context = self.context.of_init()
        init = Execution(context, self.ours, self.theirs, self.note, self.observe, _shared=True)
        ending = tuple(n for n in ENDING if getsignal(n) != SIG_IGN)
        signals = signalfd(ending)
        before = pthread_sigmask(SIG_BLOCK, ALL)

        def begin() -> NoReturn:
            pthread_sigmask(SIG_SETMASK, before)
            init.run(rest, Side.INIT)
            os._exit(1)

        try:
            made = clone_shared(flags, cgroup, self.ours.fd, self.theirs.fd, begin)
        finally:
            pthread_sigmask(SIG_SETMASK, before)
        self.theirs = Channel(-1)
        self._shared, self._signals = True, signals
        self._signal_mask = mask_of(ending)
        return made

    @property
    def _channel(self) -> Channel:
        return self.ours if self.context.side is Side.RUNTIME else self.theirs

    def _receive(self) -> Message:
        message, self._answer = self._answer, None
        return message or self._channel.receive()

    def _wait_for_turn(self) -> None:
        if self.context.side is not Side.RUNTIME:
            if self._receive().news is not News.TURN:
                os._exit(1)  # the runtime is gone, and with it the container
            return
        ours = False
        # Init may be ready sooner than the joiner has said whom it cloned.
        while not ours or self._expecting_birth:
            message = self._receive()
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
        if self.observe is None:
            self._do(step)
            return
        side, began = self.context.side, time.monotonic()
        self._do(step)
        if self.context.side is side:
            self._tell(side, step.what, began, time.monotonic())

    def _do(self, step: Step) -> None:
        try:
            if step.undo and (undo := getattr(step.action, "undo", None)) is not None:
                self.note(undo(self.context))
            step.action.run(self.context)
        except (OcirtError, OSError) as e:
            raise as_step_error(step, e) from e

    def _tell(self, side: Side, what: str, began: float, ended: float) -> None:
        if self.observe is not None and (self._shared or side is Side.RUNTIME):
            self.observe(side, what, began, ended)
        else:
            self.theirs.send(News.TRACE, side=side, what=what, began=began, ended=ended)

    def _die(self, error: BaseException) -> NoReturn:
        pointer = error.pointer if isinstance(error, StepError) else ""
        text = str(error) if isinstance(error, OcirtError) else f"internal error: {error!r}"
        message = Message(News.ERROR, {"text": text, "pointer": pointer})
        if self._shared:
            last_words(self.theirs.fd, message.encode())
        try:
            self.theirs.send(message.news, **message.data)
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
