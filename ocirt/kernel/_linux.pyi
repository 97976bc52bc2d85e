# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Callable
from typing import NoReturn

def syscall(number: int, /, *args: int | str | bytes | bytearray | memoryview | None) -> int: ...
def clone3(flags: int, exit_signal: int, cgroup: int, /) -> tuple[int, int]: ...
def clone_shared(
    flags: int,
    exit_signal: int,
    cgroup: int,
    ours: int,
    theirs: int,
    run: Callable[[], NoReturn],
    /,
) -> tuple[int, int]: ...
def turn(
    channel: int, packet: bytes, pidfd: int = -1, signals: int = -1, mask: int = 0, /
) -> bytes: ...
def last_words(channel: int, packet: bytes, /) -> NoReturn: ...
def __getattr__(name: str) -> int: ...
