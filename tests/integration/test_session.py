# SPDX-License-Identifier: GPL-3.0-or-later
"""An interactive shell in a container shows what the same shell shows without any runtime."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import Container, proc
from tests.harness.container import PATIENCE_SECONDS, PAUSE_SECONDS
from tests.harness.tmux import Window
from tests.integration.test_terminal import line, shell, started

PROMPT = "$ "
# Around it: what it ended with, and whether the terminal is as it was.
AROUND = (
    'before=$(stty -g); "$@"; status=$?; clear; echo "status $status";'
    ' test "$before" = "$(stty -g)" && echo restored; exec sleep 1000'
)
# Says when it has the terminal, again.
JOB = "#!/bin/sh\ntrap 'echo on' CONT\necho up\nwhile :; do sleep 0.1; done\n"


class Both:
    """Two windows that get the same keys: the shell by itself, and the container's."""

    def __init__(self, control: Window, container: Window) -> None:
        self._windows = (control, container)

    def __call__(self, keys: str | Callable[[Window], None], expected: str) -> None:
        """Type a line, or do something else, in both.

        Waits until the first shows what is expected, and then until the other shows the same.
        """
        for window in self._windows:
            if isinstance(keys, str):
                window.type(keys)
                window.press("Enter")
            else:
                keys(window)
        control, container = self._windows
        control.wait_for(expected)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (ours := container.screen()) != (theirs := control.screen()):
            assert time.monotonic() < deadline, f"shown:\n{ours}\ninstead of:\n{theirs}"
            time.sleep(PAUSE_SECONDS)


def press(*keys: str) -> Callable[[Window], None]:
    return lambda window: window.press(*keys)


def keys(text: str) -> Callable[[Window], None]:
    return lambda window: window.type(text)


def resize(columns: int, rows: int) -> Callable[[Window], None]:
    return lambda window: window.resize(columns, rows)


@pytest.fixture(params=["run", "exec"])
def both(request: pytest.FixtureRequest, container: Container, directory: Path) -> Iterator[Both]:
    """The shell in a root directory of its own, and in the container."""
    container.bundle.file("/bin/job", JOB, 0o755)
    own = directory / "own"
    subprocess.run(["cp", "-a", container.bundle.rootfs, own], check=True)
    environment = ["env", "-i", "PATH=/bin", "HOME=/root", f"PS1={PROMPT}", "LC_ALL=C.UTF-8"]
    alone = [*environment, "/usr/sbin/chroot", str(own), "/bin/sh"]
    if request.param == "run":
        shell(container).bundle.set("/process/env/-", "LC_ALL=C.UTF-8")
        container.bundle.save()
        bundle = ("--bundle", str(container.bundle.directory))
        words = line(container, "run", *bundle, container.id)
    else:
        started(container)
        options = ("-t", f"--env=PS1={PROMPT}", "--env=LC_ALL=C.UTF-8")
        words = line(container, "exec", *options, container.id, "/bin/sh")
    with ExitStack() as stack:
        windows = [
            stack.enter_context(Window(directory / name, ["sh", "-c", AROUND, "sh", *argv]))
            for name, argv in (("alone.tmux", alone), ("inside.tmux", words))
        ]
        for window in windows:
            window.wait_for("\n$")
        yield Both(*windows)


def test_ordinary_use(both: Both) -> None:
    # Editing, history, completion, characters of more than one byte.
    both("stty size", "24 80\n$")
    both(keys("echo ab cd"), "echo ab cd")
    both(press("BSpace", "C-a", "Right", "Right", "Right", "Right", "Right"), "echo ab c")
    both(keys("äö "), "echo äö ab c")
    both(press("Enter"), "\näö ab c\n$")
    both(press("Up", "Up"), "$ stty size")
    both(press("C-u"), "$")
    both(keys("ls /etc/pas"), "ls /etc/pas")
    both(press("Tab"), "/etc/passwd")
    both(press("C-u"), "$")
    # Line feeds are turned into CR LF once, in there or out here.
    both("clear; stty -a | grep -Ev 'utf8|onlcr|ff0'", "extproc\n$")
    both('clear; printf "\\033[31mred\\033[0m %s\\n" plain', "plain\n$")
    # Jobs.
    both("job", "\nup\n")
    both(press("C-c"), "\nup\n\n$")
    both("clear; echo was $?", "was 0\n$")
    both("job", "\nup\n")
    both(press("C-z"), "Stopped                    job\n$")
    both("fg", "\non\n")
    both(press("C-c"), "\non\n\n$")
    both("clear; jobs; echo up; cat", "\nup\n")
    both("twice", "twice\ntwice\n")
    both(press("C-d"), "twice\n$")
    # An editor, in windows of different sizes.
    both("vi /tmp/new", "~\n")
    both(keys("ifirst"), "first")
    both(press("Enter"), "2/2")
    both(keys("second"), "second")
    both(press("Escape", "k"), "1/2")
    both(resize(60, 12), "second\n" + 9 * "~\n" + "- /tmp/new")
    both(press("j"), "2/2")
    both(resize(100, 30), "second\n" + 27 * "~\n" + "- /tmp/new")
    both(keys(":wq"), ":wq")
    both(press("Enter"), "\n$")
    both("clear; cat /tmp/new; stty size", "first\nsecond\n30 100\n$")
    both(resize(80, 24), "30 100")
    both("until test $(stty size | tr -d ' ') = 2480; do :; done; clear; echo back", "back\n$")
    both("clear; seq 1 60", "60\n$")
    both("exit 3", "status 3\nrestored\n")


@pytest.fixture(params=["run", "exec"])
def host(request: pytest.FixtureRequest, container: Container, directory: Path) -> Iterator[Window]:
    """A shell with job control; its W is the command line of a container's shell."""
    if request.param == "run":
        shell(container).bundle.save()
        bundle = ("--bundle", str(container.bundle.directory))
        words = line(container, "run", *bundle, container.id)
    else:
        started(container)
        words = line(container, "exec", "-t", f"--env=PS1={PROMPT}", container.id, "/bin/sh")
    quoted = shlex.join(words)
    argv = ["env", f"W={quoted}", "PS1=host# ", "bash", "--norc", "--noprofile"]
    with Window(directory / "tmux", argv) as window:
        window.wait_for("host#")
        yield window
    # A peer that is still in the background wouldn't notice.
    for pid in proc.pids():
        if container.id in proc.command(pid).split():
            os.kill(pid, signal.SIGKILL)


def enter(window: Window, words: str) -> None:
    window.type(words)
    window.press("Enter")


@pytest.mark.peer_fails("runc", "1.1 isn't always stopped")
def test_in_the_background(host: Window) -> None:
    """There it waits, as every program that wants the terminal, until it is in the foreground."""
    enter(host, 'eval "$W &"')
    # The shell says so before its next prompt.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "Stopped" not in host.screen():
        assert time.monotonic() < deadline, host.screen()
        enter(host, "clear; jobs")
        time.sleep(0.1)
    enter(host, "clear; fg")
    host.press("Enter")
    host.wait_for("\n$")
    enter(host, "clear; echo in; exit 4")
    host.wait_for("\nin\nhost#")
    enter(host, "echo status $?")
    host.wait_for("\nstatus 4\n")


def test_stopped_from_elsewhere(host: Window, container: Container) -> None:
    """The shell takes its terminal back; when we go on, keys are passed on again."""
    enter(host, 'eval "$W"')
    host.wait_for("\n$")
    inside = next(pid for pid in container.processes() if proc.command(pid) == "/bin/sh")
    os.kill(int(proc.status(inside)["PPid"]), signal.SIGSTOP)
    host.wait_for("Stopped")
    enter(host, "stty sane; clear; echo h''ere")
    host.wait_for("\nhere\n")
    enter(host, "fg")
    host.press("Enter")
    host.wait_for("\n$")
    # What is echoed is echoed by the shell inside alone.
    enter(host, "clear; stty size; exit 5")
    host.wait_for("\n24 80\nhost#")
    enter(host, "echo status $?")
    host.wait_for("\nstatus 5\n")
