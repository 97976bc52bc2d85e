# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the image's Python begins: what the interpreter knew of the build's process is replaced."""

from __future__ import annotations

import os
import signal
import sys
import threading

from ocirt.cli.main import main
from ocirt.kernel.signals import SIG_IGN
from ocirt.kernel.signals import signal as set_handler

# Python ignores these when it starts (SIGPIPE becomes BrokenPipeError): pylifecycle's defaults.
_IGNORED_BY_PYTHON = (int(signal.SIGPIPE), int(signal.SIGXFSZ))
_MAIN_THREAD = threading.main_thread()


def entry(argv: list[str], environ: dict[bytes, bytes], ignored: int) -> int:
    """Run the program as `python3 -m ocirt` would; returns the exit status.

    ignored has a bit for each signal that the caller has set to SIG_IGN. The process ends without
    CPython's own shutdown, which would flush sys.stdout: ocirt writes unbuffered.
    """
    sys.argv[:] = sys.orig_argv[:] = argv
    variables: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    variables.clear()
    variables.update(environ)
    inherited = (n for n in range(1, ignored.bit_length()) if ignored >> n & 1)
    for number in (*_IGNORED_BY_PYTHON, *inherited):
        set_handler(number, SIG_IGN)
    _MAIN_THREAD._native_id = threading.get_native_id()  # type: ignore[attr-defined]
    try:
        status = main()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    return status
