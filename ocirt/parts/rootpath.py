# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths inside a container's root: the one module that opens them.

Everything below a rootfs belongs to the image, which may be hostile: any component can be a
symbolic link, and may be changed while we look. So a path becomes a descriptor once, here, with
links resolved as the container will see them (never above its root, never through /proc's magic
links), and all later work uses the descriptor.

openat2(2) does this in the kernel. Where it is missing or forbidden, where a rename race keeps
it from answering, and where something has to be made on the way, walk() does the same component by
component, holding a descriptor of every directory it came through.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from enum import Enum

from ocirt.kernel.constants import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
from ocirt.kernel.files import open_how, openat2

# An attacker who renames in a loop can force EAGAIN for ever; after this many the walk takes over.
_TRIES = 32
# As many symbolic links as the kernel follows in one path (path_resolution(7)).
_MAX_LINKS = 40
# How one component is opened: not through it, where it is a link.
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_WITHOUT_OPENAT2 = (errno.ENOSYS, errno.EPERM, errno.EAGAIN)


class Make(Enum):
    """What to make where a path's last component is missing; directories on the way are made."""

    NOTHING = "nothing"
    DIRECTORY = "directory"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Root:
    """A container's root directory, held as a descriptor."""

    fd: int

    def open(self, path: str, flags: int = os.O_PATH, *, tries: int = _TRIES) -> int:
        """Open an existing path as the container would see it; always close-on-exec.

        Raises OSError with the path inside the container.
        """
        try:
            return openat2(self.fd, path, open_how(flags, _RESOLVE))
        except OSError as e:
            if e.errno not in _WITHOUT_OPENAT2:
                e.filename = path
                raise
            if e.errno == errno.EAGAIN and tries > 1:
                return self.open(path, flags, tries=tries - 1)
        return self._open_by_walk(path, flags)

    def _open_by_walk(self, path: str, flags: int) -> int:
        if flags & os.O_NOFOLLOW:
            parent, name = os.path.split(path.rstrip("/"))
            if name in ("", ".", ".."):
                return self.walk(path)
            above = self.walk(parent)
            try:
                return os.open(name, flags | os.O_CLOEXEC, dir_fd=above)
            finally:
                os.close(above)
        found = self.walk(path)
        if flags & ~os.O_DIRECTORY == os.O_PATH:
            return found
        try:
            # The descriptor's own name: no path of the image is looked at again.
            return os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC)
        finally:
            os.close(found)

    def make(self, path: str, kind: Make, mode: int = 0o755) -> int:
        """Open a path (O_PATH), making what is missing of it: directories 0755, the last as asked.

        A dangling symbolic link is followed and its target made, inside the root. Raises OSError.
        """
        try:
            return self.open(path)
        except FileNotFoundError:
            made = self._make_last(path, kind, mode)
            return self.walk(path, kind, mode) if made is None else made

    def _make_last(self, path: str, kind: Make, mode: int) -> int | None:
        """Make what is missing if that is the last component alone, as usual; None if it isn't."""
        directory, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            return None
        try:
            above = self.open(directory or "/", os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            _make(above, name, kind, mode)
            fd = os.open(name, _STEP, dir_fd=above)
        except OSError as e:
            raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
        finally:
            os.close(above)
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def add(self, name: str) -> int:
        """Make a directory in the root itself, and open it (O_PATH). Raises OSError.

        One that is there already is as good, but not a link.
        """
        _make(self.fd, name, Make.DIRECTORY, 0o755)
        return os.open(name, _STEP | os.O_DIRECTORY, dir_fd=self.fd)

    def walk(self, path: str, make: Make = Make.NOTHING, mode: int = 0o755) -> int:
        """Resolve a path component by component and return an O_PATH descriptor. Raises OSError."""
        above = [os.dup(self.fd)]
        todo = _components(path)
        links = 0
        try:
            while todo:
                name = todo.pop()
                if name in (".", ".."):
                    if not stat.S_ISDIR(os.fstat(above[-1]).st_mode):
                        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                    if name == ".." and len(above) > 1:
                        os.close(above.pop())
                    continue
                kind, bits = (_on_the_way(make), 0o755) if todo else (make, mode)
                fd = _step(above[-1], name, kind, bits)
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    above.append(fd)
                    continue
                target = os.readlink("", dir_fd=fd)
                os.close(fd)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    _close(above[1:])
                    del above[1:]
                todo += _components(target)
            return above.pop()
        except OSError as e:
            raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
        finally:
            _close(above)

    def exists(self, path: str) -> bool:
        """Whether a path exists inside the root."""
        try:
            os.close(self.open(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def parent(self, path: str) -> tuple[int, str]:
        """Return a descriptor of the directory a path is in (made if missing), and its last name.

        For what must not follow a link in the last component: mknodat(2), symlinkat(2).
        """
        directory, _, name = path.rstrip("/").rpartition("/")
        return self.make(directory or "/", Make.DIRECTORY), name


def _components(path: str) -> list[str]:
    """Return a path's components, last first; an empty one (a slash too many) is a dot."""
    return [c or "." for c in reversed(path.split("/"))]


def _on_the_way(make: Make) -> Make:
    return Make.NOTHING if make is Make.NOTHING else Make.DIRECTORY


def _step(parent: int, name: str, make: Make, mode: int) -> int:
    try:
        return os.open(name, _STEP, dir_fd=parent)
    except FileNotFoundError:
        if make is Make.NOTHING:
            raise
    _make(parent, name, make, mode)
    return os.open(name, _STEP, dir_fd=parent)


def _make(parent: int, name: str, make: Make, mode: int) -> None:
    try:
        if make is Make.DIRECTORY:
            os.mkdir(name, mode, dir_fd=parent)
        else:
            create = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, create, mode, dir_fd=parent))
    except FileExistsError:
        # Somebody else made it meanwhile: it will do, if it isn't a link to elsewhere.
        pass


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
