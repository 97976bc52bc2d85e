# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that tells which of its pages were used, for placement.py.

All else is the real one's. Before a process ends or becomes the stub, it appends the addresses of
these pages, 8 bytes each, to the file that OCIRT_PROFILE names.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from typing import NoReturn

_PAGE = 4096
_PRESENT = 1 << 63  # proc_pid_pagemap(5)

_main = sys.modules["ocirt.image.entry"].main
_execve = os.execve
_output = [-1]


def _tell() -> None:
    with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in maps:
            place, mode, *_ = line.split()
            first, last = (int(address, 16) // _PAGE for address in place.split("-"))
            # The stack and what else the kernel places is far above.
            if "w" not in mode or last > 1 << 32:
                continue
            pagemap.seek(first * 8)
            pages = struct.unpack(f"={last - first}Q", pagemap.read((last - first) * 8))
            used = [(first + i) * _PAGE for i, page in enumerate(pages) if page & _PRESENT]
            os.write(_output[0], struct.pack(f"={len(used)}Q", *used))


def _tell_and_execve(program: int | str, argv: list[bytes], env: Mapping[str, str]) -> NoReturn:
    _tell()
    _execve(program, argv, env)


def _main_and_tell() -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    _output[0] = os.open(os.environ["OCIRT_PROFILE"], flags, 0o666)
    status: int = _main()
    _tell()
    return status


sys.modules["ocirt.image.entry"].main = _main_and_tell  # type: ignore[attr-defined]
os.execve = _tell_and_execve  # type: ignore[assignment]
