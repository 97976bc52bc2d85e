# SPDX-License-Identifier: GPL-3.0-or-later
"""Standard input, output and error: descriptors 0 to 2, as the caller left them."""

from __future__ import annotations

import os
import signal

from ocirt.errors import OcirtError, describe


def open_missing() -> None:
    """See that 0, 1 and 2 are open, so that no descriptor of ours becomes a container's stdio.

    A container inherits what stands in for them.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            os.set_inheritable(fd, True)


def print_out(text: str) -> None:
    """Write a command's result to stdout. Raises OcirtError: half a result is none.

    A reader that went away ends the program, as SIGPIPE does with others (Python ignores it).
    """
    data = text.encode(errors="surrogateescape")
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as e:
        raise OcirtError(f"standard output: {describe(e)}") from None


def try_write(fd: int, text: str) -> None:
    """Write text to a descriptor; never fails.

    Engines run create with stderr closed, or open for reading only.
    """
    try:
        os.write(fd, text.encode(errors="surrogateescape"))
    except OSError:
        pass
