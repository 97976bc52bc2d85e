# SPDX-License-Identifier: GPL-3.0-or-later
"""What the image has no library for, done by plain Python (docs/image.md).

call() is for one answer. It starts a process that imports no more than what the answer takes, so
functions that are called so live in modules that import little. A command that needs such a library
throughout starts anew instead (NeedsPlainPythonError).
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib import import_module

from ocirt.errors import OcirtError, describe

TYPE_CHECKING = False  # importing typing takes longer than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Answer = TypeVar("Answer")

try:
    # Only the image has this module (ocirt/image/seed.c).
    import _image  # type: ignore[import-not-found]
except ImportError:
    #: The launcher of plain Python, which the image leaves for; None: this is plain Python.
    LAUNCHER: str | None = None
else:
    LAUNCHER = _image.plain

#: The launcher's first argument for call(); two more name the function.
ANSWER = "--answer"

# What an answer may be instead of a result: the exception that call() raises for it.
_RAISED = {"refused": OcirtError, "nested": RecursionError, "bug": RuntimeError}


def call(function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Call a public function of a module; in the image, in a process of plain Python.

    Arguments and result are what marshal takes: numbers, strings, bytes, None, and tuples, lists
    and dictionaries of them. Raises OcirtError as the function does, and without a plain Python;
    RecursionError if arguments are nested too deeply to be passed on, or for the function;
    RuntimeError for a bug in it.
    """
    if LAUNCHER is None:
        return function(*arguments)
    import subprocess

    argv = [LAUNCHER, ANSWER, function.__module__, function.__name__]
    try:
        question = marshal.dumps(arguments)
    except ValueError:
        raise RecursionError from None  # all that it refuses of these is too many levels of them
    try:
        done = subprocess.run(argv, input=question, capture_output=True, check=False)
    except OSError as e:
        e.filename = None
        raise OcirtError(unavailable(e)) from None
    if done.returncode:
        *_, last = ["no message", *done.stderr.decode(errors="replace").splitlines()]
        raise OcirtError(unavailable(f"status {done.returncode}, {last}"))
    try:
        kind, found = marshal.loads(done.stdout)
    except (EOFError, TypeError, ValueError):
        raise OcirtError(unavailable("its answer can't be read")) from None
    if kind:
        raise _RAISED[kind](found)
    answer: Answer = found
    return answer


def unavailable(why: OSError | str) -> str:
    """Return the end of a sentence about a plain Python that couldn't be had."""
    words = why if isinstance(why, str) else describe(why)
    return f"this takes plain Python, and that part of ocirt can't be run: {LAUNCHER}: {words}"


def answer(module: str, name: str) -> None:
    """Be the process that call() starts: arguments on stdin, the answer on stdout; ends it."""
    arguments = marshal.load(sys.stdin.buffer)
    function = getattr(import_module(module), name)
    try:
        reply = ("", function(*arguments))
    except (OcirtError, OSError) as e:
        reply = ("refused", describe(e))
    except RecursionError as e:
        reply = ("nested", str(e))
    except Exception as e:
        reply = ("bug", f"{type(e).__name__}: {e}")
    marshal.dump(reply, sys.stdout.buffer)
    sys.stdout.flush()
    # Without the interpreter's own end: what it would take apart goes with the process.
    os._exit(0)
