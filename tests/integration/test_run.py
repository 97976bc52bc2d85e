# SPDX-License-Identifier: GPL-3.0-or-later
"""run in the foreground: what it hands on, whose parent it is, and what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Container
from tests.harness.container import PATIENCE_SECONDS
from tests.integration.test_namespaces import ask_for

# What a shell can have a trap for; it gets KILL, STOP and CHLD from nobody.
FORWARDED = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "TSTP", "TTIN")
RESIZED = pytest.param("WINCH", marks=pytest.mark.peer_fails("runc", "keeps it to itself"))


@contextmanager
def running(container: Container, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run it in the foreground, as long as this lasts; it has said "ready"."""
    runtime = container.runtime
    container.bundle.save()
    bundle = ("--bundle", str(container.bundle.directory))
    argv = [runtime.executable, "--root", str(runtime.root), "run", *bundle, *options, container.id]
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(argv, stdin=null, stdout=pipe, text=True) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
            yield run
        finally:
            run.kill()


@pytest.mark.parametrize("name", [*FORWARDED, RESIZED])
def test_signals_are_the_programs(container: Container, name: str) -> None:
    container.shell(f"trap 'echo got; exit 3' {name}; echo ready; while :; do sleep 0.02; done")
    with running(container) as run:
        run.send_signal(signal.Signals[f"SIG{name}"])
        assert run.communicate(timeout=PATIENCE_SECONDS)[0] == "got\n"
        assert run.returncode == 3
    assert container.remains() == []


def test_exec_hands_signals_on(container: Container) -> None:
    container.create()
    container.start()
    runtime = container.runtime
    script = "trap 'echo got; exit 4' TERM; echo ready; while :; do sleep 0.02; done"
    argv = [runtime.executable, "--root", str(runtime.root), "exec", container.id]
    with subprocess.Popen([*argv, "/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None and p.stdout.readline() == "ready\n"
        p.terminate()
        assert p.communicate(timeout=PATIENCE_SECONDS)[0] == "got\n"
        assert p.returncode == 4
    assert container.processes() == [container.pid]


def test_many_signals_are_all_handed_on(container: Container) -> None:
    """One of a kind may stand for several, but the last one is heard."""
    container.shell("trap 'exit 5' USR2; trap : USR1; echo ready; while :; do sleep 0.02; done")
    with running(container) as run:
        for _ in range(200):
            run.send_signal(signal.SIGUSR1)
        run.send_signal(signal.SIGUSR2)
        assert run.wait(PATIENCE_SECONDS) == 5


def test_keep(container: Container) -> None:
    container.shell("exit 6")
    assert container.run("--keep").status == 6
    assert container.status == "stopped"
    container.delete()
    assert container.remains() == []


@pytest.mark.parametrize("wanted", [True, False])
def test_subreaper(container: Container, wanted: bool) -> None:
    """Where the pid namespace is the host's, the parent of what init leaves is the runtime."""
    ask_for(container, "mount", "uts", "ipc", "network")
    container.shell("(sleep 1000 & echo $! >/tmp/orphan); echo ready; exec sleep 1000")
    with running(container, *([] if wanted else ["--no-subreaper"])) as run:
        orphan = (container.bundle.rootfs / "tmp/orphan").read_text().strip()
        assert (parent_of(orphan) == run.pid) == wanted
        container.kill("KILL")
        assert run.wait(PATIENCE_SECONDS) == 128 + signal.SIGKILL
    assert container.remains() == []


def parent_of(pid: str) -> int:
    """Return a process's parent, once the one that started it has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if "sh" not in Path(f"/proc/{parent}/comm").read_text():
            return parent
        time.sleep(0.01)
    raise AssertionError(f"{pid} still has its first parent")


def test_what_it_reaps_is_not_taken_for_its_program(container: Container) -> None:
    ask_for(container, "mount", "uts", "ipc", "network")
    script = (
        "for n in 1 2 3; do (sh -c 'sleep 0.05; exit 9' &); done; sleep 0.3; echo ready; exit 2"
    )
    container.shell(script)
    with running(container) as run:
        assert run.wait(PATIENCE_SECONDS) == 2


def test_a_detached_one_outlives_it(container: Container) -> None:
    container.command("/bin/sleep", "1000")
    container.run("--detach").checked()
    assert container.status == "running"
    # Its parent is whoever adopts: not the runtime, which has ended.
    assert os.path.exists(f"/proc/{container.pid}")
