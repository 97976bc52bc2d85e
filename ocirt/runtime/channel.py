# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel between the runtime and its children (joiner, then init): whose turn it is, and news.

A pair of SOCK_SEQPACKET sockets: one message is one packet, a letter and perhaps a JSON object. A
child whose channel closes ends; a runtime whose channel closes without word knows that the child
is dead, or, at the end, has become the stub, for the socket closes on exec.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ocirt.kernel.unix import pair

_LONGEST = 1 << 16


class News(Enum):
    """What a message says."""

    TURN = b"t"  # the other side goes on with its steps
    BORN = b"b"  # the joiner has cloned init: its pid
    WARN = b"w"  # a sentence for the log
    TRACE = b"r"  # a step's begin and end
    ERROR = b"e"  # a step failed: the sender ends
    CLOSED = b""  # nobody is there any more


_NEWS = {news.value: news for news in News}


@dataclass(frozen=True, slots=True)
class Message:
    """One message and what comes with it."""

    news: News
    data: dict[str, Any]

    def encode(self) -> bytes:
        """Return the packet."""
        return self.news.value + (json.dumps(self.data).encode() if self.data else b"")

    @staticmethod
    def decode(packet: bytes) -> Message:
        """Read a packet; an empty one means that the channel is closed."""
        news = _NEWS[packet[:1]]
        return Message(news, json.loads(packet[1:].decode()) if len(packet) > 1 else {})


TURN = News.TURN.value


@dataclass(slots=True)
class Channel:
    """One end, a descriptor; -1 once it is closed."""

    fd: int

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        """Return the runtime's end and the children's."""
        ours, theirs = pair(socket.SOCK_SEQPACKET)
        return Channel(ours), Channel(theirs)

    def send(self, news: News, **data: Any) -> None:
        """Send a message. Raises BrokenPipeError when nobody is there (SIGPIPE is ignored)."""
        os.write(self.fd, Message(news, data).encode())

    def receive(self) -> Message:
        """Wait for a message; CLOSED when the other side is gone."""
        try:
            return Message.decode(os.read(self.fd, _LONGEST))
        except ConnectionResetError:
            return Message(News.CLOSED, {})

    def close(self) -> None:
        """Close this end, if it isn't yet."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
