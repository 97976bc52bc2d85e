# SPDX-License-Identifier: GPL-3.0-or-later
"""The program: parse, do, and turn whatever went wrong into one sentence and an exit status."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from ocirt import plain
from ocirt.cli import commands, help, log, stdio
from ocirt.cli.parse import Invocation, Values, parse
from ocirt.cli.signals import clean_up_when_ended, hear_of_children
from ocirt.cli.table import GLOBALS
from ocirt.errors import NeedsPlainPythonError, OcirtError, UsageError, describe
from ocirt.kernel.process import give_slot_back

_log = logging.getLogger("ocirt")

_FIRST_AFTER_STDIO = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv if None); returns the exit status."""
    stdio.open_missing()
    clean_up_when_ended()
    hear_of_children()
    name = "ocirt"
    words = sys.argv[1:] if argv is None else argv
    try:
        invocation = _understand(words)
        if invocation.command:
            name = f"ocirt {invocation.command.name}"
        return _carry_out(invocation)
    except NeedsPlainPythonError as e:
        return _start_anew(name, words, e)
    except UsageError as e:
        _log.error("ocirt: %s", e)
        return e.exit_status
    except OcirtError as e:
        _log_traceback()
        _log.error("%s failed: %s", name, e)
        return e.exit_status
    except OSError as e:
        _log_traceback()
        _log.error("%s failed: %s", name, describe(e))
        return 1
    except Exception as e:
        _log_traceback()
        _log.error(
            "%s failed: internal error: %s: %s (this is a bug in ocirt; --debug shows where)",
            name,
            type(e).__name__,
            e,
        )
        return 1


def _start_anew(name: str, words: Sequence[str], wanted: NeedsPlainPythonError) -> int:
    """Leave for plain Python, which has the library; returns only if that isn't to be had."""
    if plain.LAUNCHER is None:
        _log.error("%s failed: %s", name, wanted)
        return wanted.exit_status
    try:
        os.execv(plain.LAUNCHER, [plain.LAUNCHER, *words])
    except OSError as e:
        _log.error("%s failed: %s", name, plain.unavailable(e))
    return wanted.exit_status


def _log_traceback() -> None:
    if _log.isEnabledFor(logging.DEBUG):
        # Before the error: engines show a log's last line.
        _log.debug("%s", traceback.format_exc().rstrip())


def _understand(words: Sequence[str]) -> Invocation:
    """Parse, and send messages where the command line wants them, even if the rest is wrong."""
    given = Values(GLOBALS)
    preserved = 0
    try:
        invocation = parse(words, given)
        preserved = invocation.options.number("preserve-fds")
    finally:
        log.configure(
            "debug" if given.flag("debug") else given.text("log-level"),
            given.text("log-format"),
            given.maybe("log"),
            lowest_fd=_FIRST_AFTER_STDIO + preserved,
        )
    return invocation


def _carry_out(invocation: Invocation) -> int:
    command = invocation.command
    if command is None or command.name != "create":
        give_slot_back()  # the image takes any word for the command
    if invocation.globals.flag("help"):
        stdio.print_out(help.of_command(command) if command else help.overview())
        return 0
    if invocation.globals.flag("version"):
        return commands.version(invocation)
    if command is None:
        stdio.print_out(help.overview())
        return 1
    return commands.HANDLERS[command.name](invocation)
