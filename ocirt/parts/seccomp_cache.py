# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled seccomp filters, kept between invocations: compiling podman's profile takes 10 ms.

An entry is named after the hash of what the filter was made from: the profile, the architecture,
the actions that the kernel knows. It is believed only if it belongs to us, nobody else could have
written it, its checksum is right and made for this name, and the libseccomp that compiled it is
still the installed one.
A cache that can't be read or written is no error; then the filter is compiled each time.
"""

from __future__ import annotations

import json
import os
import stat

# Part of every Python, and of the image; hashlib would want OpenSSL.
from _blake2 import blake2b
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ocirt.kernel.constants import AT_FDCWD
from ocirt.kernel.files import read_at
from ocirt.spec.model import Seccomp

# Part of the key: a new one makes older entries strangers, which are pruned in time.
_FORMAT = b"ocirt filter 3"
# A filter has at most 4096 instructions of 8 bytes (BPF_MAXINSNS).
_LARGEST = 1 << 16
_DIGEST_SIZE = 32
KEPT = 64


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled profile: the kernel's BPF program, and the names that libseccomp didn't know.

    libraries are the files of what compiled it, by ":".
    """

    program: bytes
    unknown: tuple[str, ...] = ()
    libraries: str = ""


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache in one of several directories: the first that is ours, or that can be made."""

    directories: tuple[str, ...]

    def load(self, profile: Seccomp) -> Filter | None:
        """Return the filter of a profile, None if it isn't here or can't be trusted."""
        name = key(profile)
        for directory in self.directories:
            with suppress(OSError, ValueError):
                fd = _open_ours(directory)
                try:
                    return _trusted(name, _read(fd, name))
                finally:
                    os.close(fd)
        return None

    def store(self, profile: Seccomp, compiled: Filter) -> None:
        """Keep a filter that was just compiled. Never fails."""
        with suppress(OSError):
            self._store(key(profile), compiled)

    def _store(self, name: str, compiled: Filter) -> None:
        libraries = compiled.libraries
        if not libraries:
            return
        unknown = json.dumps(compiled.unknown)
        head = (os.fsencode(libraries), _identity(libraries).encode(), unknown.encode())
        body = b"\n".join((*head, compiled.program))
        for directory in self.directories:
            with suppress(OSError):
                os.makedirs(directory, mode=0o700, exist_ok=True)
                fd = _open_ours(directory)
                try:
                    _write(fd, name, _digest(name, body) + body)
                    _prune(fd)
                finally:
                    os.close(fd)
                return


def default_cache() -> Cache:
    """Return the cache of whoever runs this.

    Root may be that of a user namespace (rootless podman), where /var and /run are somebody
    else's: then the user's own places are what can be written, as for any other user.
    """
    environment = os.environ
    home = environment.get("HOME")
    own = (
        environment.get("XDG_RUNTIME_DIR"),
        environment.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else None),
    )
    # A relative one has to be ignored (XDG Base Directory Specification).
    places = tuple(f"{place}/ocirt-seccomp" for place in own if place and place.startswith("/"))
    if os.geteuid() == 0:
        # The second where /var is read-only.
        return Cache(("/var/cache/ocirt/seccomp", "/run/ocirt-seccomp", *places))
    return Cache(places)


def key(profile: Seccomp) -> str:
    """Return the name of a profile's entry on this machine and kernel."""
    try:
        actions = read_at(AT_FDCWD, "/proc/sys/kernel/seccomp/actions_avail")
    except OSError:
        actions = ""  # no sysctl, or a masked one: filters of such kernels share their entries
    parts = (_FORMAT.decode(), os.uname().machine, actions, repr(profile))
    return blake2b("\0".join(parts).encode(), digest_size=_DIGEST_SIZE).hexdigest()


def _digest(name: str, body: bytes) -> bytes:
    """Return the checksum of an entry: under another name it would be another one."""
    return blake2b(body, key=bytes.fromhex(name), digest_size=_DIGEST_SIZE).digest()


def _open_ours(directory: str) -> int:
    """Open a directory that only we can write to. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not _is_ours(os.fstat(fd)):
        os.close(fd)
        raise PermissionError(directory)
    return fd


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(directory: int, name: str) -> bytes:
    # Not blocking: a FIFO put there would hang us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not _is_ours(found):
            raise PermissionError(name)
        return os.read(fd, _LARGEST)
    finally:
        os.close(fd)


def _trusted(name: str, content: bytes) -> Filter:
    """Return what is in an entry. Raises ValueError if anything about it is wrong."""
    body = content[_DIGEST_SIZE:]
    if content[:_DIGEST_SIZE] != _digest(name, body):
        raise ValueError("the checksum is wrong")
    libraries, identity, unknown, program = body.split(b"\n", 3)
    if _identity(os.fsdecode(libraries)) != identity.decode():
        raise ValueError("another libseccomp made it")
    if not program or len(program) % 8:
        raise ValueError("it is no BPF program")
    return Filter(program, tuple(json.loads(unknown)), os.fsdecode(libraries))


def _identity(libraries: str) -> str:
    """Return what changes when one of these files is replaced by another version."""
    found = (os.stat(path) for path in libraries.split(":"))
    return " ".join(f"{s.st_dev}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}" for s in found)


def _write(directory: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _prune(directory: int) -> None:
    """Keep the newest entries."""
    for _, name in sorted(_entries(directory), reverse=True)[KEPT:]:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _entries(directory: int) -> Iterator[tuple[int, str]]:
    for name in os.listdir(directory):
        with suppress(OSError):
            yield os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name
