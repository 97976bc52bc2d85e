# SPDX-License-Identifier: GPL-3.0-or-later
"""Where messages go: stderr for people, and what --log names, for engines and administrators.

Engines read JSON lines with the keys level, msg and time, and show the last error's msg. They keep
the file from one call to the next, so it is appended to. The machine's own logs get one datagram
for each message, in their own form.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import logging
import os
import socket
import struct
import time

from ocirt.cli.stdio import try_write
from ocirt.errors import UsageError, describe

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_STDERR = 2
_JOURNAL = "/run/systemd/journal/socket"
_SYSLOG = "/dev/log"
# What a log that doesn't read may hold us up, for each message: struct timeval of a second.
_PATIENCE = struct.pack("@ll", 1, 0)
_LARGEST_FD = (1 << 31) - 1
# syslog(3): LOG_USER, and the severities of our levels.
_FACILITY = 1
_SEVERITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
# RFC 3164 has English ones in every locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# A datagram may have 200 KiB (net.core.wmem_default), and what reads it less.
_LONGEST_MESSAGE = 1 << 15


class _PlainFormatter(logging.Formatter):
    """What people read on stderr; an error is a sentence of its own."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno >= logging.ERROR else f"ocirt: {_level(record)}: "
        return f"{prefix}{record.getMessage()}\n"


class _TextFormatter(logging.Formatter):
    """As logrus writes it, which is what engines' users are used to."""

    def format(self, record: logging.LogRecord) -> str:
        message = json.dumps(record.getMessage(), ensure_ascii=False)
        return f'time="{_time(record)}" level={_level(record)} msg={message}\n'


class _JsonFormatter(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": _level(record), "msg": record.getMessage(), "time": _time(record)}
        return json.dumps(fields) + "\n"


class _JournalFormatter(logging.Formatter):
    """systemd's native journal protocol: fields, one that may have newlines with its length."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name.replace("\n", " ")

    def format(self, record: logging.LogRecord) -> str:
        message = _cropped(record)
        length = struct.pack("<Q", len(message)).decode(errors="surrogateescape")
        return (
            f"PRIORITY={_SEVERITIES[record.levelno]}\nSYSLOG_IDENTIFIER={self._name}\n"
            f"MESSAGE\n{length}{message.decode(errors='surrogateescape')}\n"
        )


class _SyslogFormatter(logging.Formatter):
    """RFC 3164, as syslog(3) writes it to the machine's own daemon: local time, no host."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        # The image knows the time zone of the machine that it was built on.
        time.tzset()

    def format(self, record: logging.LogRecord) -> str:
        when = time.localtime(record.created)
        clock = f"{when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02}"
        stamp = f"{_MONTHS[when.tm_mon - 1]} {when.tm_mday:2} {clock}"
        priority = _FACILITY * 8 + _SEVERITIES[record.levelno]
        message = _cropped(record).decode(errors="surrogateescape")
        return f"<{priority}>{stamp} {self._name}[{os.getpid()}]: {message}"


_FORMATTERS: dict[str, type[logging.Formatter]] = {"text": _TextFormatter, "json": _JsonFormatter}
# What --log may begin with, in place of a file: crun's spelling.
_SERVICES = {"journald": (_JOURNAL, _JournalFormatter), "syslog": (_SYSLOG, _SyslogFormatter)}


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _time(record: logging.LogRecord) -> str:
    """Return when the message was made, as RFC 3339 has it."""
    when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cropped(record: logging.LogRecord) -> bytes:
    return record.getMessage().encode(errors="surrogateescape")[:_LONGEST_MESSAGE]


class _DescriptorHandler(logging.Handler):
    """Writes each message by one write(2): concurrent runtimes don't mix their lines."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self._fd = fd
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write; a message that can't be written is lost, and nothing else."""
        try_write(self._fd, self.format(record))


# Made once, when this is imported: in the image that was before the process began.
_TO_STDERR = _DescriptorHandler(_STDERR, _PlainFormatter())
_LOGGER = logging.getLogger("ocirt")
_LOGGER.propagate = False


def configure(level: str, form: str, destination: str | None, lowest_fd: int) -> None:
    """Set the logger "ocirt" up for this invocation.

    level and form are those of --log-level and --log-format; destination is a file, file:FILE,
    journald:NAME or syslog:NAME, None for stderr alone. The log gets a descriptor from lowest_fd
    on: those below may be the caller's gift to the container. Raises UsageError for a file that
    can't be opened; a journal or syslog that isn't there loses its messages, as with crun.
    """
    _TO_STDERR.setLevel(logging.NOTSET)
    _LOGGER.handlers = [_TO_STDERR]
    # Setting it makes logging forget what it knows of all loggers.
    if _LOGGER.level != LEVELS[level]:
        _LOGGER.setLevel(LEVELS[level])
    if destination is None:
        return
    # The log has everything; stderr is for what went wrong.
    _TO_STDERR.setLevel(logging.ERROR)
    kind, _, rest = destination.partition(":")
    if kind in _SERVICES and destination != kind:
        address, formatter = _SERVICES[kind]
        try:
            fd = _connect(address)
        except OSError:
            return
        _LOGGER.addHandler(_DescriptorHandler(_raise(fd, lowest_fd), formatter(rest or "ocirt")))
        return
    try:
        fd = _open(rest if destination.startswith("file:") else destination)
    except OSError as e:
        _TO_STDERR.setLevel(logging.NOTSET)
        raise UsageError(f"--log: {describe(e)}") from None
    _LOGGER.addHandler(_DescriptorHandler(_raise(fd, lowest_fd), _FORMATTERS[form]()))


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _connect(address: str) -> int:
    """Connect now: later this may be a process that sees a container's files."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        connection.connect(address)
        return connection.detach()


def _raise(fd: int, lowest: int) -> int:
    """Move a descriptor to the first free number from lowest on (fcntl(2), F_DUPFD)."""
    if fd >= lowest:
        return fd
    try:
        higher = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, min(lowest, _LARGEST_FD))
    except OSError as e:
        if e.errno in (errno.EINVAL, errno.EMFILE):
            # No descriptor can be that high, so what asks for it is wrong, and will be told so.
            return fd
        raise
    os.close(fd)
    return higher
