# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the container's program at create, so that a wrong name fails there.

The wording is that of Go's os/exec, which engines turn into exit codes 126 and 127.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.parts.rootpath import Make
from ocirt.parts.step import Context

# execvp(3)'s path where the environment has none.
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class FindExecutable:
    """Resolve process.args[0] inside the rootfs, by process.env's PATH if it has no slash."""

    name: str
    env: tuple[str, ...]
    cwd: str

    def run(self, c: Context) -> None:
        if "/" in self.name:
            path = os.path.join(self.cwd, self.name)
            error = _why_not(c, path)
            if error:
                words = os.strerror(error).lower()
                verb = "stat " if error == errno.ENOENT else ""
                subject = f"{verb}{self.name}: " if verb else ""
                raise OcirtError(f"exec: {_quoted(self.name)}: {subject}{words}")
            c.executable = self.name
            return
        denied = False
        for directory in self._search_path():
            path = os.path.join(self.cwd, directory or ".", self.name)
            error = _why_not(c, path)
            if not error:
                c.executable = os.path.normpath(path)
                return
            denied |= error == errno.EACCES
        if denied:
            raise OcirtError(f"exec: {_quoted(self.name)}: permission denied")
        raise OcirtError(f"exec: {_quoted(self.name)}: executable file not found in $PATH")

    def _search_path(self) -> list[str]:
        path = _DEFAULT_PATH
        for entry in self.env:
            if entry.startswith("PATH="):
                path = entry.removeprefix("PATH=")
        return path.split(":")


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _why_not(c: Context, path: str) -> int:
    """Return 0 if a path inside the root can be executed, or the errno that says why not."""
    try:
        fd = c.root.open(path)
    except OSError as e:
        return e.errno or errno.ENOENT
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if stat.S_ISDIR(found.st_mode):
        return errno.EISDIR
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
        return errno.EACCES
    return 0


@dataclass(frozen=True, slots=True)
class OpenWorkingDirectory:
    """Open process.cwd inside the rootfs, making it (0755) if it is missing, as runc does."""

    cwd: str

    def run(self, c: Context) -> None:
        try:
            fd = c.root.make(self.cwd, Make.DIRECTORY)
        except PermissionError:
            return  # the stub tries again as the program's user
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise OcirtError(f"{self.cwd}: not a directory")
        c.cwd = fd


@dataclass(frozen=True, slots=True)
class EnterWorkingDirectory:
    """Go to the directory that was opened: by descriptor, so it can't be one of the host's."""

    def run(self, c: Context) -> None:
        if c.cwd < 0:
            return
        try:
            os.fchdir(c.cwd)
        except PermissionError:
            c.cwd = -1
            return
