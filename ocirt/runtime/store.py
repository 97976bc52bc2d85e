# SPDX-License-Identifier: GPL-3.0-or-later
"""The state store: one directory per container below the root, reserved, locked and removed.

    <root>/<id>/state.json    who the container is (replaced atomically, with a format version)
    <root>/<id>/config.json   the configuration as it was at create
    <root>/<id>/journal       what has to be undone, one JSON record per line, written beforehand
    <root>/<id>/start.sock    where the stub waits; gone once the program was started

The directory itself is what two creates of one id compete for (mkdir(2) has one winner), and what
flock(2) locks. Whoever reads only (state, list, kill) needs no lock: it sees a whole file or none.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from operator import attrgetter, itemgetter
from typing import Any

from ocirt.errors import ContainerNotFoundError, OcirtError, StateConflictError
from ocirt.kernel.files import read_all, write_all

FORMAT = 1

STATE = "state.json"
CONFIG = "config.json"
JOURNAL = "journal"
SOCKET = "start.sock"

_ID = re.compile(r"[a-zA-Z0-9_+.-]+")
# A name in the state directory's parent; file systems take 255 bytes.
_LONGEST_ID = 255


@dataclass(slots=True)
class Record:
    """A container as state.json keeps it.

    init_pid is 0 until init exists; init_start is its start time in clock ticks after boot
    (proc_pid_stat(5), field 22), which makes a recycled pid harmless. created_at is RFC 3339.
    """

    id: str
    bundle: str
    rootfs: str
    oci_version: str
    created_at: str
    owner: int
    init_pid: int = 0
    init_start: int = 0
    complete: bool = False
    has_process: bool = True
    poststop: bool = False
    poststart: bool = False
    agent: bool = False  # system calls are asked about (SCMP_ACT_NOTIFY)
    rootless: bool = False
    own_keyring: bool = True  # a session keyring
    shares_pids: bool = False  # its pid namespace isn't its own
    annotations: dict[str, str] = field(default_factory=dict)
    cgroup: dict[str, Any] | None = None


_FIELDS = tuple(f.name for f in fields(Record))
_all_fields = attrgetter(*_FIELDS)
_values = itemgetter(*_FIELDS)


def _record(document: dict[str, Any]) -> Record:
    if len(document) == len(_FIELDS):
        # Not by keyword, where CPython compares each name, just read, with each parameter.
        return Record(*_values(document))
    return Record(**document)  # an older ocirt's, which had fewer


def check_id(container_id: str) -> None:
    """Raise OcirtError unless an id can name a container, as runc has it."""
    if not _ID.fullmatch(container_id) or container_id in (".", ".."):
        raise OcirtError(
            f"invalid container ID format: {container_id!r}; letters, digits and _+-. make an id"
        )
    if len(container_id) > _LONGEST_ID:
        raise OcirtError(f"container ID is longer than {_LONGEST_ID} characters")


@dataclass(frozen=True, slots=True)
class Store:
    """All containers below one root directory (--root)."""

    root: str

    def reserve(self, container_id: str) -> Entry:
        """Take an id: make its directory and lock it.

        Raises OcirtError when the id is taken: of two creates exactly one wins.
        """
        check_id(container_id)
        os.makedirs(self.root, mode=0o711, exist_ok=True)
        path = f"{self.root}/{container_id}"
        while True:
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                raise OcirtError(
                    f"container with given ID already exists: {container_id}; `delete` it or"
                    " choose another"
                ) from None
            entry = Entry(container_id, path, _open_directory(path))
            # A `delete --force` may have come between: then the directory is gone again.
            entry.lock()
            if entry.is_current():
                return entry
            entry.close()

    def open(self, container_id: str) -> Entry:
        """Open an existing container's directory, unlocked. Raises ContainerNotFoundError."""
        check_id(container_id)
        path = f"{self.root}/{container_id}"
        try:
            return Entry(container_id, path, _open_directory(path))
        except (FileNotFoundError, NotADirectoryError):
            raise ContainerNotFoundError(
                f"container does not exist: {container_id} (looked in {self.root})"
            ) from None

    @contextmanager
    def locked(self, container_id: str, *, shared: bool = False) -> Iterator[Entry]:
        """Open and lock a container for an operation that changes it.

        shared lets others of its kind in, and keeps out those that change it.
        """
        entry = self.open(container_id)
        try:
            entry.lock(shared=shared)
            if not entry.is_current():
                raise ContainerNotFoundError(f"container does not exist: {container_id}")
            yield entry
        finally:
            entry.close()

    def ids(self) -> list[str]:
        """Return the ids of all containers, sorted."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        return sorted(n for n in names if _ID.fullmatch(n))


def _remove_directory(parent: int, name: str) -> None:
    """Remove a directory of ours, which has no directories in it."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for inner in os.listdir(fd):
            os.unlink(inner, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


@dataclass(slots=True)
class Entry:
    """One container's directory, open."""

    id: str
    path: str
    fd: int

    def close(self) -> None:
        """Close the directory, which also unlocks it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lock(self, timeout: float | None = None, *, shared: bool = False) -> bool:
        """Lock the container (flock(2)); with a timeout in seconds False says it wasn't got."""
        if timeout is None:
            fcntl.flock(self.fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            return True
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    return False
                time.sleep(0.01)
            else:
                return True

    def is_locked(self) -> bool:
        """Whether another process is at work on the container."""
        if self.lock(0):
            self.unlock()
            return False
        return True

    def unlock(self) -> None:
        """Let other operations at the container."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def is_current(self) -> bool:
        """Whether the directory is still the one of that name."""
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self.fd)
        return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)

    def write_record(self, record: Record) -> None:
        """Replace state.json."""
        document = {"format": FORMAT, **dict(zip(_FIELDS, _all_fields(record), strict=True))}
        self._replace(STATE, json.dumps(document).encode())

    def read_record(self) -> Record | None:
        """Return what state.json says, None if create hasn't come so far. Raises OcirtError."""
        try:
            document = json.loads(self.read(STATE).decode())
            version = document.pop("format")
            if version != FORMAT:
                raise StateConflictError(
                    f"container {self.id}: its state has format {version}, this ocirt knows"
                    f" {FORMAT}; use the version that made it"
                )
            return _record(document)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise OcirtError(
                f"{self.path}/{STATE} can't be read ({e}); `delete --force {self.id}` removes what"
                " the journal names"
            ) from None

    def read(self, name: str) -> bytes:
        """Return one of the files. Raises FileNotFoundError."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return read_all(fd)
        finally:
            os.close(fd)

    def write(self, name: str, content: bytes) -> None:
        """Make one of the files, which must not exist yet."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self.fd)
        try:
            write_all(fd, content)
        finally:
            os.close(fd)

    def _replace(self, name: str, content: bytes) -> None:
        temporary = f".{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self.fd)
        try:
            write_all(fd, content)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """Remove one of the files, if it is there."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def remove(self) -> None:
        """Remove the directory and everything in it: the id is free again."""
        for name in os.listdir(self.fd):
            try:
                self.unlink(name)
            except IsADirectoryError:
                _remove_directory(self.fd, name)
        try:
            os.rmdir(self.path)
        except OSError as e:
            if e.errno != errno.ENOENT:
                raise
