# SPDX-License-Identifier: GPL-3.0-or-later
"""A terminal emulator with somebody before it: tmux(1), of a server of its own."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.harness.container import PATIENCE_SECONDS, PAUSE_SECONDS


class Window:
    """A window with a program in it, while it is entered."""

    def __init__(self, socket: Path, argv: Sequence[str], size: tuple[int, int] = (80, 24)) -> None:
        self._tmux = ["tmux", "-u", "-S", str(socket), "-f", "/dev/null"]
        self._argv = argv
        self._columns, self._rows = map(str, size)

    def __enter__(self) -> Window:
        self._call("new-session", "-d", "-x", self._columns, "-y", self._rows, *self._argv)
        self._server = int(self._call("display-message", "-p", "#{pid}"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call("kill-server")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while os.path.exists(f"/proc/{self._server}") and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)

    def _call(self, *words: str) -> str:
        argv = [*self._tmux, *words]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "TERM": "screen"}
        ended = subprocess.run(argv, check=True, env=environment, stdout=subprocess.PIPE)
        return ended.stdout.decode()

    def type(self, text: str) -> None:
        self._call("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: Enter, Up, C-c."""
        self._call("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._call("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> str:
        """Return what is shown, with colours, and where the cursor is.

        Without ^C and ^Z: the kernel echoes such a key when it has sent the signal, if the shell
        hasn't turned echoing off by then.
        """
        cursor = self._call("display-message", "-p", "#{cursor_x} #{cursor_y}")
        return re.sub(r"\^[CZ]", "", self._call("capture-pane", "-p", "-e")) + cursor

    def wait_for(self, text: str) -> None:
        """Wait until the screen has this text; its first line has a newline before it, too."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in "\n" + (screen := self.screen()):
            assert time.monotonic() < deadline, f"{text!r} isn't on the screen:\n{screen}"
            time.sleep(PAUSE_SECONDS)
