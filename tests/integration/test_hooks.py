# SPDX-License-Identifier: GPL-3.0-or-later
"""The six kinds of hooks (config.md, "POSIX-platform Hooks"): where, when, failing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, proc

KINDS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
IN_CONTAINER = ("startContainer",)


def log_of(container: Container) -> Path:
    return container.bundle.directory / "log"


def recorder(container: Container, kind: str, name: str = "") -> dict[str, Any]:
    """Return a hook that appends its name, namespaces and stdin to a file, as one line of JSON."""
    # The startContainer hook sees the container's files only, where the rootfs is /.
    log = "/log" if kind in IN_CONTAINER else str(log_of(container))
    ns = " ".join(f'"{k}": "\'$(readlink /proc/self/ns/{k})\'",' for k in ("pid", "net", "mnt"))
    script = f'echo \'{{"name": "{name or kind}", {ns} "state": \'$(cat)\'}}\' >> {log}'
    path = "/bin/sh" if kind in IN_CONTAINER else "/bin/dash"
    return {"path": path, "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}


def records(container: Container) -> list[dict[str, Any]]:
    """Return what the recorders wrote, the container's own file last."""
    lines: list[str] = []
    for path in (log_of(container), container.bundle.rootfs / "log"):
        lines += path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def failing(status: int = 3) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", f"echo said this >&2; exit {status}"]}


def hooks(container: Container, **kinds: list[dict[str, Any]]) -> None:
    container.config["hooks"] = kinds


@pytest.mark.peer_fails("runc", "1.1 runs poststart hooks at create")
def test_all_kinds_run_in_order(container: Container) -> None:
    hooks(container, **{kind: [recorder(container, kind)] for kind in KINDS})
    container.create()
    assert [r["name"] for r in records(container)] == [*KINDS[:3]]
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    names = [r["name"] for r in records(container)]
    assert sorted(names) == sorted(KINDS)
    assert names[:5] == [k for k in KINDS if k not in IN_CONTAINER]


def test_several_of_a_kind_run_as_listed(container: Container) -> None:
    three = [recorder(container, "createRuntime", str(n)) for n in range(3)]
    hooks(container, createRuntime=three)
    container.create()
    assert [r["name"] for r in records(container)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        pytest.param(
            "poststart",
            "running",
            marks=pytest.mark.peer_fails("runc", "1.1 runs poststart hooks at create"),
        ),
        ("poststop", "stopped"),
    ],
)
def test_the_state_on_stdin(container: Container, kind: str, status: str) -> None:
    container.config["annotations"] = {"org.example": "x"}
    hooks(container, **{kind: [recorder(container, kind)]})
    container.create()
    pid = container.pid
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    (record,) = records(container)
    state = record["state"]
    assert state["status"] == status
    assert state["id"] == container.id
    assert state["bundle"] == str(container.bundle.directory)
    assert state["annotations"] == {"org.example": "x"}
    # As the hook's side sees it: init is 1 in its own pid namespace.
    expected = {"createContainer": 1, "startContainer": 1, "poststop": 0}.get(kind, pid)
    assert state.get("pid", 0) == expected


def test_the_namespaces_that_hooks_run_in(container: Container) -> None:
    hooks(container, **{kind: [recorder(container, kind)] for kind in KINDS[:5]})
    container.create()
    container.start()
    inside = {k: proc.namespace(container.pid, k) for k in ("net", "mnt")}
    host = {k: proc.namespace("self", k) for k in ("net", "mnt")}
    for record in records(container):
        where = inside if record["name"] in ("createContainer", "startContainer") else host
        assert {k: record[k] for k in where} == where, record["name"]


def test_mounts_are_there_and_root_is_still_the_hosts(container: Container) -> None:
    """What a GPU toolkit's prestart hook relies on."""
    script = (
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); "
        f"grep -c {container.bundle.rootfs}/proc /proc/$pid/mountinfo > {log_of(container)}; "
        f"grep :devices: /proc/$pid/cgroup >> {log_of(container)}"
    )
    hooks(container, prestart=[{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    container.create()
    mounts, devices = log_of(container).read_text().split("\n")[:2]
    assert int(mounts) >= 1
    assert devices.endswith(container.cgroups_path)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_at_create(container: Container, kind: str) -> None:
    hooks(container, **{kind: [failing()], "poststop": [recorder(container, "poststop")]})
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "said this" in message
    assert container.remains() == []
    container.refused("state")
    # The lifecycle goes on with the container's destruction: runc 1.1 runs them as well.
    assert [r["name"] for r in records(container)] == ["poststop"]


@pytest.mark.peer_fails("runc", "1.1 doesn't say which hook it was by its place")
def test_the_message_names_the_hook(container: Container) -> None:
    hooks(container, createRuntime=[recorder(container, "createRuntime"), failing(7)])
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/hooks/createRuntime/1" in message
    assert "exit status 7" in message


@pytest.mark.peer_fails("runc", "1.1 says nothing at start: the hook ends the container later")
def test_a_failing_startcontainer_hook(container: Container) -> None:
    hooks(container, startContainer=[failing()])
    container.shell("echo ran > /ran; sleep 1000")
    container.create()
    container.refused("start")
    container.wait_for("stopped")
    assert not (container.bundle.rootfs / "ran").exists()


@pytest.mark.peer_fails("runc", "1.1 keeps the container (the rule is of runtime-spec 1.3)")
def test_a_failing_poststart_hook(container: Container) -> None:
    hooks(container, poststart=[failing()], poststop=[recorder(container, "poststop")])
    container.create()
    pid = container.pid
    container.refused("start")
    assert not proc.is_running(pid)
    assert container.remains() == []
    assert [r["name"] for r in records(container)] == ["poststop"]


@pytest.mark.peer_fails("runc", "1.1 stops at the first poststop hook that fails")
def test_a_failing_poststop_hook_is_a_warning(container: Container) -> None:
    hooks(container, poststop=[failing(), recorder(container, "poststop")])
    container.create()
    container.kill("KILL")
    container.wait_for("stopped")
    result = container.delete()
    assert "said this" in result.stderr
    assert [r["name"] for r in records(container)] == ["poststop"]
    assert container.remains() == []


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_timeout_at_create(container: Container, kind: str) -> None:
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("runc 1.1 waits for ever for what the hook left behind")
    script = "sleep 1000 & sleep 1000"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}
    hooks(container, **{kind: [hook]})
    container.bundle.save()
    began = time.monotonic()
    container.refused("create", "--bundle", str(container.bundle.directory))
    assert time.monotonic() - began < 30
    assert container.remains() == []


@pytest.mark.peer_fails("runc", "1.1 says nothing at start: the hook ends the container later")
def test_a_timeout_at_start(container: Container) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 1000"], "timeout": 1}
    hooks(container, startContainer=[hook])
    container.create()
    container.refused("start")
    container.wait_for("stopped")


def test_a_hook_that_doesnt_exist(container: Container) -> None:
    hooks(container, createRuntime=[{"path": "/no/such/hook"}])
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/no/such/hook" in message


def test_the_environment_is_the_hooks_own(container: Container) -> None:
    os.environ["OCIRT_SECRET"] = "x"
    try:
        script = f"env > {log_of(container)}"
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b"]}
        hooks(container, createRuntime=[hook])
        container.create()
    finally:
        del os.environ["OCIRT_SECRET"]
    text = log_of(container).read_text()
    assert "A=b" in text
    assert "OCIRT_SECRET" not in text
