# SPDX-License-Identifier: GPL-3.0-or-later
"""The six kinds of hooks (config.md, "POSIX-platform Hooks"): where, when, failing."""

from __future__ import annotations

import json
import os
import select
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, cgroup, proc
from tests.harness.container import PATIENCE_SECONDS

KINDS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
IN_CONTAINER = ("startContainer",)
# For sed: the pid of the state on stdin.
PID = r's/.*"pid": *\([0-9]*\).*/\1/'


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


def ended(pidfd: int) -> bool:
    """Tell whether a process ends, and close its pidfd, which is readable from then on."""
    readable, _, _ = select.select([pidfd], [], [], PATIENCE_SECONDS)
    os.close(pidfd)
    return bool(readable)


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


@pytest.mark.peer_fails("runc", "1.1 runs poststart hooks at create")
def test_the_hooks_around_the_program(container: Container) -> None:
    """startContainer comes before the program, poststart when init is the program."""
    before = {"path": "/bin/sh", "args": ["sh", "-c", "echo before > /before"]}
    script = f"exe=$(readlink /proc/$(sed '{PID}')/exe); echo $exe > {log_of(container)}"
    after = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}
    hooks(container, startContainer=[before], poststart=[after])
    container.shell("cat /before > /program; sleep 1000")
    container.create()
    assert not (container.bundle.rootfs / "before").exists()
    container.start()
    assert log_of(container).read_text() == "/bin/busybox\n"
    container.kill("KILL")
    container.wait_for("stopped")
    assert (container.bundle.rootfs / "before").read_text() == "before\n"


def test_poststop_hooks_see_nothing_of_the_container(container: Container) -> None:
    places = (container.runtime.root / container.id, *cgroup.hierarchies().values())
    inner = container.cgroups_path
    names = " ".join(f"{p}{inner if p != places[0] else ''}" for p in places)
    script = f"for p in {names}; do [ ! -e $p ] || echo $p; done > {log_of(container)}"
    hooks(container, poststop=[{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    container.create()
    assert places[0].exists()
    container.delete("--force")
    assert log_of(container).read_text() == ""


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
    kinds = ("pid", "net", "mnt")
    hooks(container, **{kind: [recorder(container, kind)] for kind in KINDS})
    container.create()
    container.start()
    inside = {k: proc.namespace(container.pid, k) for k in kinds}
    host = {k: proc.namespace("self", k) for k in kinds}
    assert not set(inside.values()) & set(host.values())
    container.delete("--force")
    written = records(container)
    assert sorted(r["name"] for r in written) == sorted(KINDS)
    for record in written:
        where = inside if record["name"] in ("createContainer", "startContainer") else host
        assert {k: record[k] for k in where} == where, record["name"]


def test_mounts_are_there_and_root_is_still_the_hosts(container: Container) -> None:
    """What a GPU toolkit's prestart hook relies on."""
    script = (
        f"pid=$(sed '{PID}'); "
        f"grep -c {container.bundle.rootfs}/proc /proc/$pid/mountinfo > {log_of(container)}; "
        f"(grep :devices: /proc/$pid/cgroup || grep ^0:: /proc/$pid/cgroup) >> {log_of(container)}"
    )
    hooks(container, prestart=[{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    container.create()
    mounts, devices = log_of(container).read_text().split("\n")[:2]
    assert int(mounts) >= 1
    assert devices.endswith(container.cgroups_path)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_at_create(container: Container, kind: str) -> None:
    wanted = {kind: [failing(), recorder(container, kind)]}
    hooks(container, **wanted, poststop=[recorder(container, "poststop")])
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "said this" in message
    assert container.remains() == []
    container.refused("state")
    # The hook after the one that failed isn't run. The lifecycle goes on with the container's
    # destruction: runc 1.1 runs poststop hooks as well.
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
    hooks(container, startContainer=[recorder(container, "startContainer"), failing(7)])
    container.shell("echo ran > /ran; sleep 1000")
    container.create()
    init = os.pidfd_open(container.pid)
    message = container.refused("start")
    assert "/hooks/startContainer/1" in message
    assert "exit status 7" in message
    assert ended(init)
    assert not (container.bundle.rootfs / "ran").exists()
    assert [r["name"] for r in records(container)] == ["startContainer"]


@pytest.mark.peer_fails("runc", "1.1 says nothing at start: the hook ends the container later")
def test_a_failing_startcontainer_hook_ends_in_destruction(container: Container) -> None:
    hooks(container, startContainer=[failing()], poststop=[recorder(container, "poststop")])
    container.create()
    container.refused("start")
    assert container.remains() == []
    assert [r["name"] for r in records(container)] == ["poststop"]


@pytest.mark.peer_fails("runc", "1.1 runs poststart hooks at create, which fails")
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


def slow(container: Container, script: str = "exec sleep 1000") -> dict[str, Any]:
    """Return a hook that takes longer than it may; $LOG is a file that the test can read."""
    env = ["PATH=/usr/bin:/bin", f"LOG={log_of(container)}"]
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": env, "timeout": 1}


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_timeout_at_create(container: Container, kind: str) -> None:
    hooks(container, **{kind: [slow(container)]})
    container.bundle.save()
    container.refused("create", "--bundle", str(container.bundle.directory))
    assert container.remains() == []


def test_a_timeout_ends_what_the_hook_started(container: Container) -> None:
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("runc 1.1 waits for ever for what the hook left behind")
    hooks(container, createRuntime=[slow(container, "sleep 1000 & echo $! > $LOG; wait")])
    container.bundle.save()
    container.refused("create", "--bundle", str(container.bundle.directory))
    assert not proc.is_running(int(log_of(container).read_text()))


@pytest.mark.peer_fails("runc", "1.1 says nothing at start: the hook ends the container later")
def test_a_timeout_at_start(container: Container) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 1000"], "timeout": 1}
    hooks(container, startContainer=[hook])
    container.create()
    init = os.pidfd_open(container.pid)
    container.refused("start")
    assert ended(init)
    assert container.remains() == []


def test_a_hook_that_doesnt_exist(container: Container) -> None:
    hooks(container, createRuntime=[{"path": "/no/such/hook"}])
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/no/such/hook" in message


@pytest.mark.peer_fails("runc", "1.1 says nothing at start: the hook ends the container later")
def test_a_startcontainer_hook_is_looked_for_in_the_container(container: Container) -> None:
    on_the_host = container.bundle.directory / "hook"
    on_the_host.write_text("#!/bin/sh\n")
    on_the_host.chmod(0o755)
    hooks(container, startContainer=[{"path": str(on_the_host)}])
    container.create()
    assert str(on_the_host) in container.refused("start")


def test_without_args_the_path_is_argv0(container: Container) -> None:
    hook = container.bundle.directory / "hook"
    hook.write_text(f'#!/bin/sh\necho "$0 $#" > {log_of(container)}\n')
    hook.chmod(0o755)
    hooks(container, createRuntime=[{"path": str(hook)}])
    container.create()
    assert log_of(container).read_text() == f"{hook} 0\n"


@pytest.mark.peer_fails("runc", "1.1 stops at the first poststop hook that fails")
def test_a_timeout_at_poststop_is_a_warning(container: Container) -> None:
    hooks(container, poststop=[slow(container), recorder(container, "poststop")])
    container.create()
    result = container.delete("--force")
    assert "timeout" in result.stderr
    assert [r["name"] for r in records(container)] == ["poststop"]


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
