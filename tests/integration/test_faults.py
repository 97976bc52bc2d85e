# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever step fails, and wherever the runtime is killed, nothing of the container stays.

fault.py interferes at one step of a create. These tests look into ocirt, so they run with the
package's own interpreter whatever --runtime is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Container, proc
from tests.integration.conftest import MakeContainer
from tests.integration.test_namespaces import ask_for

FAULT = Path(__file__).parents[1] / "harness" / "fault.py"
CHECKOUT = Path(__file__).parents[2]
LIMITS = {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}, "cpu": {"shares": 512}}
HOOK = {"path": "/bin/true"}

# What fault.py exits with when the step never came: the create went through.
WENT_THROUGH = 0


@pytest.fixture(autouse=True)
def ours_only(container: Container) -> None:
    """Skip for peers: there is no way into their steps."""
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("interferes with ocirt's own steps")


def plain(container: Container) -> None:
    container.bundle.set("/linux/resources", LIMITS)
    limit = {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}
    container.bundle.set("/process/rlimits", [limit])
    container.config["hooks"] = {"createRuntime": [HOOK], "createContainer": [HOOK]}


def with_joiner(container: Container) -> None:
    ask_for(container, "user", "time", "cgroup", "pid", "mount", "uts", "ipc", "network")
    container.bundle.set("/linux/resources", LIMITS)
    container.bundle.set("/linux/timeOffsets", {"boottime": {"secs": 100}})
    entry = {"destination": "/data", "type": "bind", "source": "/tmp", "options": ["bind"]}
    container.config["mounts"].append(entry)


def in_the_hosts_mounts(container: Container) -> None:
    """Its mounts would stay, as they are the host's."""
    ask_for(container, "pid", "uts", "ipc", "network")
    entry = {"destination": "/data", "type": "bind", "source": "/tmp", "options": ["bind"]}
    container.config["mounts"].append(entry)
    files = dict.fromkeys(("stdout", "stderr"), "/dev/null")
    container.config["annotations"] = {f"run.oci.hooks.{k}": v for k, v in files.items()}
    container.config["hooks"] = {"createContainer": [HOOK], "startContainer": [HOOK]}


def interfere(container: Container, mode: str, step: int) -> tuple[int, str]:
    """Run a create with a fault at a step; return its exit status and what it said."""
    container.bundle.save()
    argv = [sys.executable, str(FAULT), mode, str(step), "--root", str(container.runtime.root)]
    argv += ["create", "--bundle", str(container.bundle.directory), container.id]
    # A container that was created keeps stderr: a pipe would stay open.
    with tempfile.TemporaryFile("w+") as stderr:
        ended = subprocess.run(
            argv,
            env={"PYTHONPATH": str(CHECKOUT), "OCIRT_TEST": os.environ["OCIRT_TEST"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            timeout=60,
            check=False,
        )
        stderr.seek(0)
        return ended.returncode, stderr.read()


def settled(container: Container) -> list[str]:
    """Return what is left after the kernel had a moment to reap the killed."""
    deadline = time.monotonic() + 5
    while (left := container.remains()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


# What never comes back to say that it is done, and what plan lists besides the steps.
UNTOLD = ("clone init", "clone the joiner", "become the stub", "reserve", "record")


@pytest.mark.parametrize("prepare", [plain, with_joiner])
def test_a_trace_has_every_step(
    container: Container, directory: Path, prepare: Callable[[Container], None]
) -> None:
    """Of all processes, in the order of the plan."""
    prepare(container)
    container.bundle.save()
    place = ("--bundle", str(container.bundle.directory))
    listing = container.runtime.call("plan", "--format=json", *place, container.id).checked().stdout
    plan = [(s["side"], s["step"]) for s in json.loads(listing) if s["phase"] == "create"]
    trace = directory / "trace"
    container.create(f"--trace={trace}")
    container.delete("--force")
    events = json.loads(trace.read_text())["traceEvents"]
    told = [(e["tid"], e["name"]) for e in sorted(events, key=lambda e: e["ts"])]
    expected = [entry for entry in plan if not entry[1].startswith(UNTOLD)]
    assert [entry for entry in told if not entry[1].startswith(UNTOLD)] == expected


@pytest.mark.parametrize("prepare", [plain, with_joiner, in_the_hosts_mounts])
@pytest.mark.parametrize("mode", ["fail", "kill", "kill-after"])
def test_at_every_step(container: Container, mode: str, prepare: object) -> None:
    assert callable(prepare)
    prepare(container)
    for step in range(200):
        status, words = interfere(container, mode, step)
        if mode == "fail" and status:
            # The failed create cleans up after itself, and says what failed.
            assert "EIO" in words, words
            assert "Traceback" not in words
            assert container.remains() == [], f"step {step}: {words}"
        container.delete("--force")
        assert settled(container) == [], f"step {step}"
        if status == WENT_THROUGH:
            break
    else:
        pytest.fail("the plan has no end")
    assert step > 25


def test_a_child_that_is_killed_at_every_step(container: Container) -> None:
    """As by the kernel for want of memory: the runtime takes everything back, and says so."""
    plain(container)
    container.bundle.save()
    place = str(container.bundle.directory)
    plan = container.runtime.call("plan", "--format", "json", "--bundle", place).checked()
    rows = json.loads(plan.stdout)
    ended = 0
    for step in range(sum(row["phase"] == "create" for row in rows)):
        status, words = interfere(container, "kill-child", step)
        if status:
            ended += 1
            assert "init" in words, words
            assert "Traceback" not in words
            assert settled(container) == [], f"step {step}: {words}"
        container.delete("--force")
    assert ended > 15


def test_killed_before_the_first_record(container: Container) -> None:
    """mkdir(2) reserves the id; the runtime may die before it has written anything."""
    entry = container.runtime.root / container.id
    entry.mkdir(parents=True)
    container.refused("state")
    container.refused("start")
    container.delete("--force")
    assert not entry.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\0" * 100])
def test_a_state_that_cant_be_read(container: Container, content: bytes) -> None:
    container.create()
    pid = container.pid
    (container.runtime.root / container.id / "state.json").write_bytes(content)
    assert container.id in container.refused("state")
    container.refused("delete")
    container.delete("--force")
    assert not proc.is_running(pid)
    assert settled(container) == []


def test_a_torn_journal_line_doesnt_count(container: Container) -> None:
    container.create()
    with (container.runtime.root / container.id / "journal").open("ab") as journal:
        journal.write(b'{"kind": "cgr')
    container.delete("--force")
    assert settled(container) == []


def test_a_state_of_another_version(container: Container) -> None:
    container.create()
    path = container.runtime.root / container.id / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "format": 99}))
    assert "99" in container.refused("state")
    container.delete("--force")


def test_two_deletes_at_once(container: Container) -> None:
    container.create()
    argv = [container.runtime.executable, "--root", str(container.runtime.root)]
    argv += ["delete", "--force", container.id]
    both = [subprocess.Popen(argv) for _ in range(2)]
    assert [p.wait(30) for p in both] == [0, 0]
    assert settled(container) == []


@contextmanager
def hanging_create(container: Container, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """Begin a create that hangs in a hook of this kind; yield it when init exists."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 1000"]}
    container.config["hooks"] = {kind: [hook]}
    container.bundle.save()
    argv = [container.runtime.executable, "--root", str(container.runtime.root), "create"]
    argv += ["--bundle", str(container.bundle.directory), container.id]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as create:
        deadline = time.monotonic() + 20
        while not container.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield create


def test_delete_during_a_create_that_hangs(container: Container) -> None:
    with hanging_create(container, "createContainer") as create:
        container.delete("--force")
        assert create.wait(30) == 1
    assert settled(container) == []


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_terminated_create_cleans_up(container: Container, kind: str) -> None:
    with hanging_create(container, kind) as create:
        time.sleep(0.2)
        create.send_signal(signal.SIGTERM)
        assert create.wait(30) == 128 + signal.SIGTERM
    assert settled(container) == []


def test_a_start_that_dies_before_it_said_go(container: Container) -> None:
    container.create()
    place = container.runtime.root / container.id / "start.sock"
    for words in (b"", b"x"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
            client.send(words) if words else None
    assert container.status == "created"
    container.start()
    assert container.status == "running"


def test_a_vanished_rootfs_is_no_obstacle_to_delete(make_container: MakeContainer) -> None:
    container = make_container()
    container.create()
    container.bundle.rootfs.rename(container.bundle.directory / "elsewhere")
    container.delete("--force")
    assert settled(container) == []
