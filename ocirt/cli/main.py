# SPDX-License-Identifier: GPL-3.0-or-later
"""The program: parse, do, and turn whatever went wrong into one sentence and an exit status."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from ocirt.cli import commands, help, log
from ocirt.cli.parse import Invocation, parse
from ocirt.errors import OcirtError, UsageError

_log = logging.getLogger("ocirt")

_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    _open_stdio()
    # Whoever ends us in the middle of a create gets its clean-up, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    words = list(sys.argv[1:] if argv is None else argv)
    log.configure("warning", "text", None)
    try:
        invocation = parse(words)
    except UsageError as e:
        log.write(2, f"ocirt: {e}\n")
        return e.exit_status
    try:
        return _carry_out(invocation)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _open_stdio() -> None:
    """See that 0, 1 and 2 are open, so that no descriptor of ours becomes a container's stdio."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _carry_out(invocation: Invocation) -> int:
    given = invocation.globals
    debug = bool(given["debug"])
    command = invocation.command
    name = command.name if command else ""
    try:
        log.configure(
            "debug" if debug else str(given["log-level"]),
            str(given["log-format"]),
            None if given["log"] is None else str(given["log"]),
        )
        if given["version"]:
            return commands.version(invocation)
        if given["help"] or command is None:
            log.output(help.of_command(command) if command else help.overview())
            return 0 if given["help"] else 1
        return commands.HANDLERS[name](invocation)
    except UsageError as e:
        _log.error("%s", e)
        return e.exit_status
    except OcirtError as e:
        _log.error("%s failed: %s", name, e)
        return e.exit_status
    except BrokenPipeError:
        return 1
    except Exception as e:
        if debug:
            log.write(2, traceback.format_exc())
        _log.error(
            "%s failed: internal error: %s: %s (a bug in ocirt; --debug shows where)",
            name,
            type(e).__name__,
            e,
        )
        return 1
