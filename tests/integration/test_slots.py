# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates that wait for others (ocirt/image/slot.c)."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness import Container, proc

SLOTS = Path("/run/ocirt.lock")
SLOT_FD = 63
NANOSLEEP = "35"
LIMIT_SECONDS = 60

pytestmark = pytest.mark.usefixtures("image")


@contextmanager
def all_slots() -> Iterator[None]:
    """Take all slots, once nobody else has one."""
    fd = os.open(SLOTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        proc.wait_until(lambda: take_all(fd))
        yield
    finally:
        os.close(fd)


def take_all(fd: int) -> bool:
    """Tell whether all slots were free; then they are the descriptor's."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def call(container: Container, *words: str) -> subprocess.Popen[bytes]:
    """Start a command on a container in its bundle's directory; words are all but the id."""
    container.bundle.save()
    argv = [container.runtime.executable, "--root", str(container.runtime.root), *words]
    return subprocess.Popen(
        [*argv, container.id],
        cwd=container.bundle.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def free_while_tracing(container: Container) -> bool:
    """Tell whether all slots are free while a create has read its configuration and goes on."""
    fifo = container.bundle.directory / "fifo"
    os.mkfifo(fifo)
    with call(container, "create", "--trace", str(fifo)) as create:
        proc.wait_until((container.runtime.root / container.id / "config.json").exists)
        fd = os.open(SLOTS, os.O_RDWR | os.O_CLOEXEC)
        free = take_all(fd)
        os.close(fd)
        fifo.read_bytes()
        assert create.wait(LIMIT_SECONDS) == 0
    return free


def test_a_create_waits_for_a_slot(container: Container) -> None:
    def naps() -> bool:
        return Path(f"/proc/{create.pid}/syscall").read_text().split()[:1] == [NANOSLEEP]

    with ExitStack() as ended, all_slots():
        create = ended.enter_context(call(container, "create"))
        proc.wait_until(lambda: create.poll() is not None or naps())
        assert create.poll() is None
        assert not container.runtime.root.exists()
    assert create.returncode == 0
    assert container.status == "created"


def test_no_create_waits_for_ever(container: Container) -> None:
    with all_slots():
        container.create()
    assert container.status == "created"


@pytest.mark.parametrize("before", [[], ["--log", "create"]])
def test_a_run_holds_none(container: Container, before: list[str]) -> None:
    """Its container may live for years, whatever words there are among its options."""
    container.command("/bin/sleep", "100")
    container.bundle.save()
    (container.bundle.directory / "config.json").rename(container.bundle.directory / "create")
    with call(container, *before, "run", "--config", "create") as run:
        proc.wait_until((container.runtime.root / container.id).exists)
        container.wait_for("running")
        with all_slots():
            pass
        container.kill("KILL")
        assert run.wait(LIMIT_SECONDS) == 128 + signal.SIGKILL


def test_a_slot_is_held_until_the_container_is_created(container: Container) -> None:
    assert not free_while_tracing(container)
    with all_slots():
        assert container.status == "created"


def test_nobody_waits_for_hooks(container: Container) -> None:
    container.config["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}
    assert free_while_tracing(container)


def test_a_slot_is_no_descriptor_of_the_callers(container: Container) -> None:
    """All below the slot's but stdin are open, and that is one that the caller says it has."""
    container.bundle.save()
    last = str(SLOT_FD)
    script = f'for ((i = 3; i < {last}; i++)); do eval "exec $i</dev/null"; done; exec "$@" <&-'
    argv = [container.runtime.executable, "--root", str(container.runtime.root), "create"]
    argv += ["--preserve-fds", str(SLOT_FD - 2), "--bundle", str(container.bundle.directory)]
    ended = subprocess.run(
        ["bash", "-c", script, "bash", *argv, container.id],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 1
    assert f"descriptor {last} isn't open" in ended.stderr
