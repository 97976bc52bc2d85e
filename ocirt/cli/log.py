# SPDX-License-Identifier: GPL-3.0-or-later
"""Where messages go: stderr for people, a log file for engines.

Engines read JSON lines with the keys level, msg and time, and show the last error's msg. They keep
the file from one call to the next, so it is appended to.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import logging
import os

from ocirt.cli.stdio import try_write
from ocirt.errors import UsageError, describe

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_STDERR = 2


class _PlainFormatter(logging.Formatter):
    """What people read on stderr; an error is a sentence of its own."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno >= logging.ERROR else f"ocirt: {_level(record)}: "
        return f"{prefix}{record.getMessage()}"


class _TextFormatter(logging.Formatter):
    """As logrus writes it, which is what engines' users are used to."""

    def format(self, record: logging.LogRecord) -> str:
        message = json.dumps(record.getMessage(), ensure_ascii=False)
        return f'time="{_time(record)}" level={_level(record)} msg={message}'


class _JsonFormatter(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {"level": _level(record), "msg": record.getMessage(), "time": _time(record)}
        )


_FORMATTERS: dict[str, type[logging.Formatter]] = {"text": _TextFormatter, "json": _JsonFormatter}


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _time(record: logging.LogRecord) -> str:
    """Return when the message was made, as RFC 3339 has it."""
    when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _DescriptorHandler(logging.Handler):
    """Writes each message by one write(2), so that concurrent runtimes don't mix their lines."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self._fd = fd
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write; a message that can't be written is lost, and nothing else."""
        try_write(self._fd, self.format(record) + "\n")


# Made once, when this is imported: in the image that was before the process began.
_TO_STDERR = _DescriptorHandler(_STDERR, _PlainFormatter())
_LOGGER = logging.getLogger("ocirt")
_LOGGER.propagate = False


def configure(level: str, form: str, path: str | None, lowest_fd: int) -> None:
    """Set the logger "ocirt" up for this invocation.

    level and form are those of --log-level and --log-format; path None means stderr alone. The file
    gets a descriptor from lowest_fd on: those below may be the caller's gift to the container.
    Raises UsageError.
    """
    _TO_STDERR.setLevel(logging.NOTSET)
    _LOGGER.handlers = [_TO_STDERR]
    _LOGGER.setLevel(LEVELS[level])
    if path is None:
        return
    try:
        fd = _open(path, lowest_fd)
    except OSError as e:
        raise UsageError(f"--log: {describe(e)}") from None
    _LOGGER.addHandler(_DescriptorHandler(fd, _FORMATTERS[form]()))
    # The file has everything; stderr is for what went wrong.
    _TO_STDERR.setLevel(logging.ERROR)


def _open(path: str, lowest_fd: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    if fd >= lowest_fd:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest_fd)
    finally:
        os.close(fd)
