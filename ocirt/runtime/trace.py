# SPDX-License-Identifier: GPL-3.0-or-later
"""--trace FILE: when each step began and ended, in Chrome's trace event format.

chrome://tracing and ui.perfetto.dev show such files. Times are microseconds of the monotonic
clock, one track per side.
"""

from __future__ import annotations

import json
import os


class Trace:
    """Collects events and writes them at the end."""

    def __init__(self, path: str) -> None:
        # Opened first, so that a wrong path fails before anything is made.
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._events: list[dict[str, object]] = []

    def add(self, side: str, what: str, began: float, ended: float) -> None:
        """Add a step; times in seconds."""
        self._events.append(
            {
                "name": what,
                "cat": "step",
                "ph": "X",
                "ts": round(began * 1e6, 1),
                "dur": round((ended - began) * 1e6, 1),
                "pid": 1,
                "tid": side,
            }
        )

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *failure: object) -> None:
        """Write the file, also when a step failed."""
        with os.fdopen(self._fd, "w") as file:
            json.dump({"traceEvents": self._events, "displayTimeUnit": "ms"}, file, indent=1)
