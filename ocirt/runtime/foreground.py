# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting in the foreground for a container's program: signals, its terminal, its exit status."""

from __future__ import annotations

import errno
import os
import select
import signal
from types import TracebackType

from ocirt.errors import OcirtError
from ocirt.kernel import terminal as tty
from ocirt.kernel.signals import (
    ALL,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    pthread_sigmask,
    read_signalfd,
    signalfd,
    sigtimedwait,
)
from ocirt.runtime.notify import Notify

# Signals that concern this process itself; all others are the container's.
_OWN = {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGURG}
_FORWARDED = ALL - {int(number) for number in _OWN}
_AWAITED = _FORWARDED | {int(signal.SIGCHLD)}

# Bytes per read(2) and write(2). A pipe that polls as writable takes so many without blocking.
_CHUNK = 4096
# After the program's end: more than a terminal can hold, unless somebody still writes to it.
_LAST_CHUNKS = 256
# What ends the input of a program that reads lines from its terminal.
_END_OF_FILE = b"\x04"


class HeldSignals:
    """Keep signals, from before the program runs until wait_for() hands them on.

    One that comes a moment after the program's first words is the program's already.
    """

    def __enter__(self) -> None:
        self._previous = pthread_sigmask(SIG_BLOCK, _AWAITED)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What came too late for the program isn't meant for us either.
        while sigtimedwait(_FORWARDED, 0):
            continue
        pthread_sigmask(SIG_SETMASK, self._previous)


def wait_for(pid: int, terminal: int = -1, notify: Notify | None = None) -> int:
    """Forward signals to a child until it ends, reaping whatever else becomes our child.

    terminal is the master of the program's terminal: what people type goes there, and what it
    says comes here; it is closed at the end. notify is where the program says that it is ready.
    Call it with HeldSignals. Returns the exit status, 128 + n if signal n ended it.
    """
    arrivals = signalfd(_AWAITED)
    try:
        if terminal < 0:
            return _wait(pid, arrivals, None, notify)
        with Relay(terminal) as relay:
            return _wait(pid, arrivals, relay, notify)
    finally:
        os.close(arrivals)


def prepare_terminal(master: int) -> None:
    """Set a program's terminal up before the program sees it, and saves what it saw.

    It has the size of the caller's, and takes its input for UTF-8 if that does. Line feeds come as
    the program wrote them, as without a terminal; the caller's terminal turns them into CR LF.
    """
    host = _own_terminal()
    attributes = tty.without_onlcr(tty.tcgetattr(master))
    if host >= 0:
        attributes = tty.in_utf8_as(attributes, tty.tcgetattr(host))
    tty.tcsetattr(master, attributes)
    _copy_size(host, master)


def _own_terminal() -> int:
    return next((fd for fd in (0, 1, 2) if tty.is_terminal(fd)), -1)


def _in_background(host: int) -> bool:
    """Whether a terminal is somebody else's just now, who has set it as they want it."""
    try:
        return os.tcgetpgrp(host) != os.getpgrp()
    except OSError:
        return False  # it isn't our controlling terminal


def _copy_size(host: int, master: int) -> None:
    if host < 0:
        return
    try:
        size = tty.get_size(host)
        if size.rows and size.columns:
            tty.set_size(master, size)
    except OSError:
        pass  # the terminal is gone


def _wait(pid: int, arrivals: int, relay: Relay | None, notify: Notify | None) -> int:
    while (code := _reap(pid)) is None:
        ready = _poll(arrivals, relay, notify)
        if notify is not None and notify.fileno() in ready:
            notify.hear(os.getpid())
        if relay is not None:
            relay.pass_on(ready)
        if arrivals in ready:
            number = read_signalfd(arrivals)
            if relay is not None and number == signal.SIGWINCH:
                relay.resize()
                continue
            if relay is not None and number == signal.SIGCONT:
                relay.resume()
            if number != signal.SIGCHLD:
                _send(pid, number)
    if relay is not None:
        relay.drain()
    return code


def _poll(arrivals: int, relay: Relay | None, notify: Notify | None) -> dict[int, int]:
    """Wait for what happens next: the events (poll(2)) by descriptor."""
    poll = select.poll()
    poll.register(arrivals, select.POLLIN)
    if notify is not None and not notify.ready:
        poll.register(notify.fileno(), select.POLLIN)
    if relay is not None:
        for fd, events in relay.wanted().items():
            poll.register(fd, events)
    return dict(poll.poll())


def _reap(pid: int) -> int | None:
    """Reap what has ended; the program's exit status if it is among them."""
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            raise OcirtError("the container's init was reaped by somebody else") from None
        if ended == 0:
            return None
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has just ended


class Relay:
    """Between the caller's terminal, or whatever stdin and stdout are, and a program's terminal.

    While it lasts, the caller's terminal passes every byte on.
    """

    def __init__(self, master: int) -> None:
        self._master = master
        self._host = _own_terminal()
        self._saved: tty.Attributes | None = None
        self._typed = b""  # from stdin, on its way to the program
        self._said = b""  # from the program, on its way to stdout
        self._listening = True  # stdin may have more
        self._talking = True  # the program's side may have more
        self._heard = True  # stdout takes it

    def __enter__(self) -> Relay:
        os.set_blocking(self._master, False)
        if self._host >= 0:
            # In the background whatever touches the terminal stops us, until a shell's `fg`.
            pthread_sigmask(SIG_UNBLOCK, (signal.SIGTTIN, signal.SIGTTOU))
            self._saved = tty.tcgetattr(self._host)
            self.resume()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._saved is not None and not _in_background(self._host):
            try:
                tty.tcsetattr(self._host, self._saved)
            except OSError:
                pass  # the terminal is gone
        os.close(self._master)

    def resume(self) -> None:
        """Make the caller's terminal pass everything on, also after a shell took it for itself."""
        if self._saved is not None:
            try:
                tty.tcsetattr(self._host, tty.raw(self._saved))
            except OSError:
                return  # the terminal is gone
            self.resize()

    def resize(self) -> None:
        """Give the program's terminal the size of the caller's."""
        _copy_size(self._host, self._master)

    def wanted(self) -> dict[int, int]:
        """Return what poll(2) is to watch: nothing is read before what was read has gone on."""
        events: dict[int, int] = {}
        if self._listening and not self._typed:
            events[0] = select.POLLIN
        if self._said and self._heard:
            events[1] = select.POLLOUT
        if self._talking:
            wanted = 0 if self._said else select.POLLIN
            wanted |= select.POLLOUT if self._typed else 0
            if wanted:
                events[self._master] = wanted
        return events

    def pass_on(self, ready: dict[int, int]) -> None:
        """Move what can be moved."""
        if self._listening and 0 in ready:
            self._listen()
        if self._talking and self._master in ready:
            if self._typed and ready[self._master] & select.POLLOUT:
                self._type()
            if not self._said and ready[self._master] & ~select.POLLOUT:
                self._hear()
        if self._said and 1 in ready:
            self._tell()

    def drain(self) -> None:
        """Pass on what the program said last."""
        for _ in range(_LAST_CHUNKS):
            if not self._said:
                before = self._talking
                self._hear()
                if not self._said or not before:
                    return
            if not self._heard:
                return
            poll = select.poll()
            poll.register(1, select.POLLOUT)
            poll.poll()
            self._tell()

    def _listen(self) -> None:
        try:
            self._typed = os.read(0, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._listening = False  # hung up, or we are in the background
            return
        if not self._typed:
            self._listening = False
            self._typed = _END_OF_FILE

    def _type(self) -> None:
        try:
            self._typed = self._typed[os.write(self._master, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self._typed = b""

    def _hear(self) -> None:
        try:
            self._said = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return
        except OSError as e:
            if e.errno != errno.EIO:
                raise
        if not self._said:
            self._talking = False  # nobody has the other end open any more

    def _tell(self) -> None:
        try:
            self._said = self._said[os.write(1, self._said) :]
        except BlockingIOError:
            pass
        except OSError:
            self._heard, self._said = False, b""
