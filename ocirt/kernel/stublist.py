# SPDX-License-Identifier: GPL-3.0-or-later
"""The list that the stub (stub.c) runs, and how it reports.

A list is a header, a data area, and an array of operations. The stub maps it at a fixed address,
so every pointer is known while the list is written. Both files describe one ABI: change them
together.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from ocirt.kernel import _linux

# What the stub says before it does what could make it mute, and with a descriptor.
_SILENCE_IS_SUCCESS = b"x"

#: The answer to a descriptor that was handed over.
GO_ON = b"g"

LIST_ADDRESS = 0x100000000
PID_SIZE = 8
_MAGIC = 0x31424F54534943
_HEADER = struct.Struct("=QQQQ")
# Where the data begins.
_FIRST = LIST_ADDRESS + _HEADER.size
# In the place of arguments that a system call doesn't have.
_UNUSED = (0,) * 6
# Of a 64-bit register.
_SIGN = 1 << 63
_OP = struct.Struct("=IIq6qQq")

_FILES = struct.Struct("=iii")
_HOOK_END = struct.Struct("=iiii")
_ERROR = struct.Struct("=ii")

# cmsg(3) with one descriptor, and struct msghdr (recvmsg(2)), both as on all 64-bit machines.
_RIGHTS = struct.Struct("=QiiI4x")
_RIGHTS_LENGTH = 20  # without the padding
_MESSAGE = struct.Struct("=QI4xQQQQi4x")
_SOL_SOCKET, _SCM_RIGHTS, _MSG_NOSIGNAL = 1, 1, 0x4000

Argument = int | bytes


class _Kind(IntEnum):
    SYSCALL = 0
    WAIT = 1
    HOOK = 2
    REPORT_TO = 3
    FORK = 4
    FOR_EACH_BIT = 5


class Flag(IntFlag):
    """How an operation is done.

    MAY_FAIL: go on after a failure. SILENT: if nothing more is heard, the program runs (the execve
    closes the channel, and a filter may forbid to send). PEER: see hand_over(). KEEP and
    TAKE: see keep() and take().
    """

    NONE = 0
    MAY_FAIL = 1
    SILENT = 2
    KEEP = 4
    PEER = 8
    TAKE = 16


class Failure(IntEnum):
    """What the number in a report means: an errno, a wait status, or milliseconds."""

    BY_ERRNO = 0
    BY_STATUS = 1
    BY_TIMEOUT = 2


@dataclass(frozen=True, slots=True)
class HookEnd:
    """How a hook ended: number is what failure says (0: it worked); said is the end of its output.

    seconds is how long it took.
    """

    failure: Failure
    number: int
    seconds: float
    said: str


@dataclass(frozen=True, slots=True)
class Report:
    """The stub's answer on the start channel.

    executed: the program runs. Otherwise text, failure and number say what went wrong; a report
    with neither means that the stub vanished (it was killed). hooks are those that were run.
    """

    executed: bool
    text: str = ""
    failure: Failure | None = None
    number: int = 0
    hooks: tuple[HookEnd, ...] = ()


class StubList:
    """Collects the operations of one container's start."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ops = bytearray()
        self._texts = {"": (0, 0)}  # where they are, and how long

    def place(self, content: bytes) -> int:
        """Put bytes into the data area and return their address in the stub."""
        data = self._data
        if odd := len(data) % 8:
            data += bytes(8 - odd)
        address = _FIRST + len(data)
        data += content
        return address

    def place_strings(self, strings: Sequence[bytes]) -> int:
        """Put a NULL-terminated array of C strings (argv, envp) and return its address."""
        addresses = [self.place(s + b"\0") for s in strings]
        return self.place(struct.pack(f"={len(addresses) + 1}Q", *addresses, 0))

    def syscall(
        self, number: int, *args: Argument, text: str = "", flags: Flag = Flag.NONE
    ) -> None:
        """Add a system call; bytes are placed and passed by address; text precedes its error."""
        if bytes in map(type, args):
            args = tuple(self.place(a) if isinstance(a, bytes) else a for a in args)
        self._add(_Kind.SYSCALL, flags, number, args, text)

    def for_each_bit(self, number: int, first: int, mask: int, text: str) -> None:
        """Add a system call that is made for each bit of a mask: its second argument is the bit."""
        self._add(_Kind.FOR_EACH_BIT, Flag.NONE, number, [first, 0, 0, 0, 0, mask], text)

    def keep(self, number: int, *args: Argument, text: str = "") -> int:
        """Add a system call of up to 5 arguments; returns where its result will be, for take()."""
        place = self.place(bytes(4))
        padding = [0] * (5 - len(args))
        self.syscall(number, *args, *padding, place, text=text, flags=Flag.KEEP)
        return place

    def take(self, number: int, place: int, *args: Argument, text: str = "") -> None:
        """Add a system call whose first argument is the result that keep() kept at a place."""
        self.syscall(number, place, *args, text=text, flags=Flag.TAKE)

    def hand_over(
        self, number: int, *args: Argument, text: str = "", flags: Flag = Flag.NONE
    ) -> None:
        """Add a system call whose result, a descriptor, goes to `start`, and wait for its answer.

        Any byte is an answer. The call may have 5 arguments.
        """
        rights = self.place(_RIGHTS.pack(_RIGHTS_LENGTH, _SOL_SOCKET, _SCM_RIGHTS, 0))
        descriptor = rights + _RIGHTS.size - 8
        padding = [0] * (5 - len(args))
        self.syscall(number, *args, *padding, descriptor, text=text, flags=flags | Flag.KEEP)
        byte = self.place(_SILENCE_IS_SUCCESS)
        vector = self.place(struct.pack("=QQ", byte, 1))
        message = _MESSAGE.pack(0, 0, vector, 1, rights, _RIGHTS.size, 0)
        text = f"{text}: hand its descriptor over"
        self.syscall(_linux.SYS_sendmsg, 0, message, _MSG_NOSIGNAL, text=text, flags=Flag.PEER)
        self.syscall(_linux.SYS_read, 0, byte, 1, text=text, flags=Flag.PEER)

    def wait(self, socket: int) -> None:
        """Add the wait for `start` on a listening socket."""
        self._add(_Kind.WAIT, Flag.NONE, 0, [socket], "")

    def report_to(self, socket: int) -> None:
        """Name the socket for errors, where there is no wait for `start` that accepts one."""
        self._add(_Kind.REPORT_TO, Flag.NONE, 0, [socket], "")

    def fork(self, pid_to: int, text: str) -> None:
        """Go on as a sibling in the pid namespace that was joined; its pid is written to pid_to.

        As 8 bytes (PID_SIZE), and as the forking process's pid namespace has it.
        """
        self._add(_Kind.FORK, Flag.NONE, 0, [pid_to], text)

    def hook(
        self,
        path: bytes,
        argv: Sequence[bytes],
        env: Sequence[bytes],
        stdin: bytes,
        timeout_ms: int,
        text: str,
        files: tuple[int, int, int],
    ) -> None:
        """Add a program to run with stdin as its input; timeout_ms 0 means no limit.

        files are the descriptors of its stdout, of its stderr, and of a file whose new content is
        reported as what it said.
        """
        values = [
            self.place(path + b"\0"),
            self.place_strings(argv),
            self.place_strings(env),
            self.place(stdin),
            len(stdin),
            timeout_ms,
        ]
        self._add(_Kind.HOOK, Flag.NONE, self.place(_FILES.pack(*files)), values, text)

    def _add(
        self, kind: _Kind, flags: Flag, number: int, args: Sequence[Argument], text: str
    ) -> None:
        text_at = self._texts.get(text)
        if text_at is None:
            words = text.encode()
            text_at = self._texts[text] = self.place(words), len(words)
        unused = _UNUSED[len(args) :]
        try:
            self._ops += _OP.pack(kind, flags, number, *args, *unused, *text_at)
        except struct.error:
            # All 64 bits of a register, as a signed number.
            args = [int(a) - 2 * _SIGN if int(a) >= _SIGN else a for a in args]
            self._ops += _OP.pack(kind, flags, number, *args, *unused, *text_at)

    def encode(self) -> bytes:
        """Return the file that the stub maps."""
        self._data += bytes(-len(self._data) % 8)
        ops = _FIRST + len(self._data)
        size = _HEADER.size + len(self._data) + len(self._ops)
        header = _HEADER.pack(_MAGIC, size, len(self._ops) // _OP.size, ops)
        return b"".join((header, self._data, self._ops))


def decode_report(answer: bytes) -> Report:
    """Read all that the stub said from "go" until it closed the channel."""
    executing = False
    hooks: list[HookEnd] = []
    at = 0
    while at < len(answer):
        kind, at = answer[at : at + 1], at + 1
        if kind == _SILENCE_IS_SUCCESS:
            executing = True
        elif kind == b"h" and len(answer) >= at + _HOOK_END.size:
            failure, number, ms, size = _HOOK_END.unpack_from(answer, at)
            at += _HOOK_END.size
            said = answer[at : at + size].decode(errors="replace")
            hooks.append(HookEnd(Failure(failure), number, ms / 1000, said))
            at += size
        elif kind == b"e" and len(answer) >= at + _ERROR.size:
            failure, number = _ERROR.unpack_from(answer, at)
            text = answer[at + _ERROR.size :].decode(errors="replace")
            return Report(False, text, Failure(failure), number, tuple(hooks))
        else:
            break  # it was killed in the middle of a word
    return Report(executing, hooks=tuple(hooks))
