# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel between the runtime and its children (joiner, then init): whose turn it is, and news.

A pair of SOCK_SEQPACKET sockets: one message is one packet. A child whose channel closes ends; a
runtime whose channel closes without word knows that the child is dead, or, at the end, has become
the stub, for the socket closes on exec.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_LONGEST = 1 << 16


class News(StrEnum):
    """What a message says."""

    TURN = "turn"  # the other side goes on with its steps
    BORN = "born"  # the joiner has cloned init: its pid
    WARN = "warn"  # a sentence for the log
    TRACE = "trace"  # a step's begin and end
    ERROR = "error"  # a step failed: the sender ends
    CLOSED = "closed"  # nobody is there any more


@dataclass(frozen=True, slots=True)
class Message:
    """One message and what comes with it."""

    news: News
    data: dict[str, Any]


@dataclass(slots=True)
class Channel:
    """One end."""

    end: socket.socket

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        """Return the runtime's end and the children's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Channel(ours), Channel(theirs)

    def send(self, news: News, **data: Any) -> None:
        """Send a message. Raises BrokenPipeError when nobody is there."""
        self.end.send(json.dumps([news, data]).encode(), socket.MSG_NOSIGNAL)

    def receive(self) -> Message:
        """Wait for a message; CLOSED when the other side is gone."""
        try:
            packet = self.end.recv(_LONGEST)
        except ConnectionResetError:
            packet = b""
        if not packet:
            return Message(News.CLOSED, {})
        news, data = json.loads(packet)
        return Message(News(news), data)

    def close(self) -> None:
        """Close this end."""
        self.end.close()
