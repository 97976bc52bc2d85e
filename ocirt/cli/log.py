# SPDX-License-Identifier: GPL-3.0-or-later
"""Where messages go: stderr for people, a log file for engines.

Engines read JSON lines with the keys level, msg and time, and show the last error's msg. stderr may
be closed or opened for reading only: that never becomes an error of its own.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys

from ocirt.errors import UsageError

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _TextFormatter(logging.Formatter):
    """As logrus writes it, which is what engines' users are used to."""

    def format(self, record: logging.LogRecord) -> str:
        message = json.dumps(record.getMessage(), ensure_ascii=False)
        return f'time="{_now()}" level={record.levelname.lower()} msg={message}'


class _JsonFormatter(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname.lower(), "msg": record.getMessage(), "time": _now()}
        return json.dumps(line, ensure_ascii=False)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).astimezone().isoformat(timespec="seconds")


class _DescriptorHandler(logging.Handler):
    """Writes each message by one write(2), and never fails for it."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        write(self._fd, self.format(record) + "\n")


def write(fd: int, text: str) -> None:
    """Write text to a descriptor that may be closed or not open for writing."""
    try:
        os.write(fd, text.encode(errors="replace"))
    except OSError:
        pass


class _PlainFormatter(logging.Formatter):
    """What people read on stderr."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno >= logging.ERROR else f"{record.levelname.lower()}: "
        return f"ocirt: {prefix}{record.getMessage()}"


def configure(level: str, form: str, path: str | None) -> None:
    """Set the "ocirt" logger up for this invocation. Raises UsageError."""
    logger = logging.getLogger("ocirt")
    logger.setLevel(LEVELS[level])
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    stderr = _DescriptorHandler(2)
    stderr.setFormatter(_PlainFormatter())
    logger.addHandler(stderr)
    if path is None:
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise UsageError(f"--log {path}: {(e.strerror or '').lower()}") from None
    file = _DescriptorHandler(fd)
    file.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logger.addHandler(file)
    # The file has them; stderr is for what went wrong.
    stderr.setLevel(logging.ERROR)


def output(text: str) -> None:
    """Print a command's result. Raises OSError: the caller may want to know that it is lost."""
    sys.stdout.write(text)
    sys.stdout.flush()
