# SPDX-License-Identifier: GPL-3.0-or-later
"""What ocirt tells its users when something can't be done.

Every failure that a user can cause or mend is an OcirtError: one sentence, without a traceback.
Anything else that escapes is a bug in ocirt.
"""

from __future__ import annotations

import errno
import os


class OcirtError(Exception):
    """A failure with a message for the user.

    exit_status is what the process exits with (1 for all but exec, where runc's users expect 255).
    """

    exit_status = 1


class UsageError(OcirtError):
    """The command line is wrong."""


class ContainerNotFoundError(OcirtError):
    """No container has this id."""


class StateConflictError(OcirtError):
    """The container's status doesn't allow the operation."""


class NeedsPlainPythonError(OcirtError):
    """A library is wanted throughout that the pre-initialised executable doesn't have.

    For one answer ocirt.plain.call() is enough. Raised before anything was changed, or where
    everything is taken back. The command line then starts anew under plain Python (ocirt.cli.main);
    there the message says what to install.
    """


class StepError(OcirtError):
    """A step of the plan failed.

    where says which step in words, pointer its place in config.json, cause what the kernel or the
    step itself said.
    """

    def __init__(self, where: str, pointer: str, cause: BaseException | str) -> None:
        self.where = where
        self.pointer = pointer
        self.cause = cause if isinstance(cause, str) else describe(cause)
        place = f" [{pointer}]" if pointer else ""
        super().__init__(f"{where}{place}: {self.cause}")


def describe(error: BaseException) -> str:
    """Return an exception as the end of a sentence: path, symbolic errno and the system's words."""
    if isinstance(error, OSError) and error.errno is not None:
        name = errno.errorcode.get(error.errno, str(error.errno))
        words = os.strerror(error.errno).lower()
        path = f"{error.filename}: " if error.filename else ""
        extra = "" if error.strerror in (None, os.strerror(error.errno)) else f" ({error.strerror})"
        return f"{path}{name}: {words}{extra}"
    return str(error) or type(error).__name__
