# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks: runtime.md "Lifecycle", config.md "POSIX-platform Hooks" and the chapters on each kind."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.probe import assert_create_refused, exists, text, try_create, wait_until
from conformance.requirement import Level, requirement
from tests.harness import Container, proc

lifecycle = partial(requirement, "runtime.md", "Lifecycle", level=Level.MUST)
hooks = partial(requirement, "config.md", "POSIX-platform Hooks", level=Level.MUST)
must = partial(requirement, "config.md", level=Level.MUST)

SHELL_PATH = "PATH=/usr/bin:/bin"
NAMESPACES = "for kind in mnt net uts; do readlink /proc/self/ns/$kind; done > $LOG"
PID = r's/.*"pid" *: *\([0-9]*\).*/\1/p'


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of hook: its chapter, and what the state says while it runs."""

    name: str
    chapter: str
    status: str
    in_container: bool = False
    # The program is looked up among the container's files.
    container_path: bool = False


PRESTART = Kind("prestart", "Prestart", "creating")
CREATE_RUNTIME = Kind("createRuntime", "CreateRuntime Hooks", "creating")
CREATE_CONTAINER = Kind("createContainer", "CreateContainer Hooks", "creating", True)
START_CONTAINER = Kind("startContainer", "StartContainer Hooks", "created", True, True)
POSTSTART = Kind("poststart", "Poststart", "running")
POSTSTOP = Kind("poststop", "Poststop", "stopped")
KINDS = (PRESTART, CREATE_RUNTIME, CREATE_CONTAINER, START_CONTAINER, POSTSTART, POSTSTOP)


def each(*marks: tuple[Kind, list[pytest.MarkDecorator]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "kind", [pytest.param(kind, id=kind.name, marks=m) for kind, m in marks]
    )


def log_of(container: Container, kind: Kind) -> Path:
    place = container.bundle.rootfs if kind.container_path else container.bundle.directory
    return place / f"log-{kind.name}"


def hook(container: Container, kind: Kind, script: str) -> dict[str, Any]:
    """Return a hook that runs a shell script; $LOG is its log."""
    log = f"/log-{kind.name}" if kind.container_path else str(log_of(container, kind))
    return {
        "path": "/bin/sh",
        "args": ["sh", "-c", script],
        "env": [SHELL_PATH, f"LOG={log}"],
    }


def set_hooks(container: Container, kind: Kind, *entries: dict[str, Any]) -> None:
    container.config.setdefault("hooks", {})[kind.name] = list(entries)


def live(container: Container) -> None:
    """Bring the container through all phases."""
    container.create()
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()


def start(container: Container, kind: Kind) -> None:
    """Start the container; its startContainer hooks may still run when start returns."""
    container.start()
    if kind is START_CONTAINER:
        log = log_of(container, kind)
        wait_until(lambda: "\n" in text(log) or "}" in text(log), "the hook wrote its log")


def advance_to(container: Container, kind: Kind) -> None:
    """Do what makes the hooks of a kind run."""
    container.create()
    if kind in (START_CONTAINER, POSTSTART, POSTSTOP):
        start(container, kind)
    if kind is POSTSTOP:
        container.kill("KILL")
        container.wait_for("stopped")
        container.delete()


@each(
    (PRESTART, [lifecycle(10, says="prestart hooks run")]),
    (CREATE_RUNTIME, [lifecycle(13, says="createRuntime hooks run")]),
    (CREATE_CONTAINER, [lifecycle(16, says="createContainer hooks run")]),
    (START_CONTAINER, [lifecycle(21, says="startContainer hooks run")]),
    (POSTSTART, [lifecycle(26, says="poststart hooks run")]),
    (POSTSTOP, [lifecycle(36, says="poststop hooks run")]),
)
def test_hooks_run_once(container: Container, kind: Kind) -> None:
    set_hooks(container, kind, hook(container, kind, "echo ran >> $LOG"))
    advance_to(container, kind)
    assert text(log_of(container, kind)) == "ran\n"


@each(
    (PRESTART, [lifecycle(11, says="a failing prestart hook: error, stop, destroy")]),
    (CREATE_RUNTIME, [lifecycle(14, says="a failing createRuntime hook: error, stop, destroy")]),
    (
        CREATE_CONTAINER,
        [lifecycle(17, says="a failing createContainer hook: error, stop, destroy")],
    ),
    (START_CONTAINER, [lifecycle(22, says="a failing startContainer hook: error, stop, destroy")]),
    (POSTSTART, [lifecycle(27, says="a failing poststart hook: error, stop, destroy")]),
)
@pytest.mark.right(
    "step 12 destroys the container and step 13 runs the poststop hooks, after each failure alike"
)
def test_failing_hook(container: Container, kind: Kind) -> None:
    set_hooks(container, kind, hook(container, kind, "cat > /dev/null; exit 3"))
    set_hooks(container, POSTSTOP, hook(container, POSTSTOP, "echo ran >> $LOG"))
    result = try_create(container)
    if kind in (START_CONTAINER, POSTSTART):
        result.checked()
        pid = container.pid
        assert container.runtime.call("start", container.id).status > 0
        wait_until(lambda: not proc.is_running(pid), "the process has ended")
    else:
        assert result.status > 0, str(result)
    assert not exists(container)
    assert text(log_of(container, POSTSTOP)) == "ran\n"


@lifecycle(37, says="after a failing poststop hook the others run, and delete succeeds")
def test_failing_poststop(container: Container) -> None:
    failing = hook(container, POSTSTOP, "echo 1 >> $LOG; exit 3")
    set_hooks(container, POSTSTOP, failing, hook(container, POSTSTOP, "echo 2 >> $LOG"))
    live(container)
    assert text(log_of(container, POSTSTOP)) == "1\n2\n"
    assert not exists(container)


@each(
    (PRESTART, [hooks(6, says="a hook's path is absolute")]),
    (CREATE_RUNTIME, [hooks(16, says="a hook's path is absolute")]),
)
def test_relative_path(container: Container, kind: Kind) -> None:
    set_hooks(container, kind, hook(container, kind, "true") | {"path": "bin/sh"})
    assert_create_refused(container)


@each(
    (PRESTART, [hooks(10, says="a timeout is greater than zero")]),
    (CREATE_RUNTIME, [hooks(20, says="a timeout is greater than zero")]),
)
@pytest.mark.right("zero isn't greater than zero, and invalid values are errors (Valid values)")
@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_not_positive(container: Container, kind: Kind, timeout: int) -> None:
    set_hooks(container, kind, hook(container, kind, "true") | {"timeout": timeout})
    assert_create_refused(container)


@each(
    (PRESTART, [hooks(10, says="a hook that takes longer than its timeout is aborted")]),
    (CREATE_RUNTIME, [hooks(20, says="a hook that takes longer than its timeout is aborted")]),
)
def test_timeout(container: Container, kind: Kind) -> None:
    slow = hook(container, kind, "echo $$ > $LOG; exec sleep 1000") | {"timeout": 1}
    set_hooks(container, kind, slow)
    assert_create_refused(container)
    pid = int(text(log_of(container, kind)))
    wait_until(lambda: not proc.is_running(pid), "the hook is gone")


def runtime_path(sentence: int, kind: Kind, at: int) -> tuple[Kind, list[pytest.MarkDecorator]]:
    says = "the path is one of the runtime's namespace"
    return kind, [hooks(sentence, says=says), must(kind.chapter, at, says=says)]


@each(
    runtime_path(11, PRESTART, 6),
    runtime_path(21, CREATE_RUNTIME, 2),
    runtime_path(25, CREATE_CONTAINER, 3),
    runtime_path(33, POSTSTART, 3),
    runtime_path(37, POSTSTOP, 3),
)
def test_path_in_runtime_namespace(container: Container, kind: Kind) -> None:
    program = container.bundle.directory / "hook"
    program.write_text('#!/bin/sh\necho ran >> "$LOG"\n')
    program.chmod(0o755)
    # A file of the same path in the container must not be taken.
    container.bundle.file(str(program), '#!/bin/sh\necho wrong >> "$LOG"\n', 0o755)
    env = [SHELL_PATH, f"LOG={log_of(container, kind)}"]
    set_hooks(container, kind, {"path": str(program), "env": env})
    advance_to(container, kind)
    assert text(log_of(container, kind)) == "ran\n"


@hooks(29, says="a startContainer hook's path is one of the container's")
@must("StartContainer Hooks", 3, says="the path is one of the container's namespace")
def test_path_in_container(container: Container) -> None:
    container.bundle.file("/only-inside", "#!/bin/sh\necho ran >> /log-startContainer\n", 0o755)
    set_hooks(container, START_CONTAINER, {"path": "/only-inside"})
    advance_to(container, START_CONTAINER)
    assert text(log_of(container, START_CONTAINER)) == "ran\n"


def where(sentence: int, kind: Kind, at: int) -> tuple[Kind, list[pytest.MarkDecorator]]:
    says = f"it runs in the {'container' if kind.in_container else 'runtime'}'s namespaces"
    return kind, [hooks(sentence, says=says), must(kind.chapter, at, says=says)]


@each(
    where(12, PRESTART, 7),
    where(22, CREATE_RUNTIME, 3),
    where(26, CREATE_CONTAINER, 4),
    where(30, START_CONTAINER, 4),
    where(34, POSTSTART, 4),
    where(38, POSTSTOP, 4),
)
def test_namespaces(container: Container, kind: Kind) -> None:
    set_hooks(container, kind, hook(container, kind, NAMESPACES))
    container.create()
    pid = container.pid
    of_container = [proc.namespace(pid, kind) for kind in ("mnt", "net", "uts")]
    start(container, kind)
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    ours = [proc.namespace("self", kind) for kind in ("mnt", "net", "uts")]
    seen = text(log_of(container, kind)).split()
    assert seen == (of_container if kind.in_container else ours)


@hooks(40, says="hooks run in the listed order")
def test_listed_order(container: Container) -> None:
    for kind in KINDS:
        entries = [hook(container, kind, f"echo {number} >> $LOG") for number in range(3)]
        set_hooks(container, kind, *entries)
    live(container)
    assert [text(log_of(container, kind)) for kind in KINDS] == ["0\n1\n2\n"] * len(KINDS)


@hooks(41, says="a hook reads the container's state on stdin")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.right(
    "a state has one of the statuses of runtime.md: creating until create has finished,"
    " then created until the program runs"
)
def test_state_on_stdin(container: Container, kind: Kind) -> None:
    container.config["annotations"] = {"org.example.key": "value"}
    set_hooks(container, kind, hook(container, kind, "cat > $LOG"))
    container.create()
    pid = container.pid
    start(container, kind)
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    state = json.loads(text(log_of(container, kind)))
    assert re.fullmatch(r"\d+\.\d+\.\d+(-.*)?", state["ociVersion"])
    assert state["id"] == container.id
    assert state["bundle"] == str(container.bundle.directory)
    assert state["annotations"]["org.example.key"] == "value"
    assert state["status"] == kind.status
    if kind is not POSTSTOP:
        # In the container its process is the first of the pid namespace.
        assert state["pid"] == (1 if kind.in_container else pid)


@each(
    (PRESTART, [must("Prestart", 1, says="in create, with the environment made, before pivot")]),
    (
        CREATE_RUNTIME,
        [must("CreateRuntime Hooks", 1, says="in create, environment made, before pivot")],
    ),
)
def test_before_pivot(container: Container, kind: Kind) -> None:
    marker = container.bundle.directory / "marker"
    marker.touch()
    script = f"""pid=$(sed -n '{PID}')
        readlink /proc/$pid/ns/net >> $LOG
        grep -c ' {container.bundle.rootfs}/proc ' /proc/$pid/mountinfo >> $LOG
        ls /proc/$pid/root{marker} >> $LOG"""
    set_hooks(container, kind, hook(container, kind, script))
    container.create()
    network, mounted, *seen = text(log_of(container, kind)).split()
    assert network == proc.namespace(container.pid, "net")
    assert int(mounted) >= 1, "no mounts yet"
    assert seen, "the container's root isn't the host's any more"


@must("CreateContainer Hooks", 1, says="in create, with the environment made, before pivot")
def test_create_container_before_pivot(container: Container) -> None:
    marker = container.bundle.directory / "marker"
    marker.touch()
    script = f"""grep -c ' {container.bundle.rootfs}/proc ' /proc/self/mountinfo >> $LOG
        ls {marker} >> $LOG"""
    set_hooks(container, CREATE_CONTAINER, hook(container, CREATE_CONTAINER, script))
    container.create()
    mounted, *seen = text(log_of(container, CREATE_CONTAINER)).split()
    assert int(mounted) >= 1, "no mounts yet"
    assert seen, "the container's root isn't the host's any more"


@must("Prestart", 3, says="prestart hooks run before createRuntime hooks")
@must("CreateContainer Hooks", 2, says="createContainer hooks run after createRuntime hooks")
def test_order_of_kinds(container: Container) -> None:
    log = container.bundle.directory / "order"
    for kind in (CREATE_CONTAINER, CREATE_RUNTIME, PRESTART):
        set_hooks(container, kind, hook(container, kind, f"echo {kind.name} >> {log}"))
    container.create()
    assert text(log).split() == ["prestart", "createRuntime", "createContainer"]


@must("StartContainer Hooks", 1, says="in start, before the program")
def test_start_container(container: Container) -> None:
    log = log_of(container, START_CONTAINER)
    set_hooks(container, START_CONTAINER, hook(container, START_CONTAINER, "echo hook >> $LOG"))
    container.shell(f"echo program >> /{log.name}; sleep 1000")
    container.create()
    assert not log.exists(), "ran at create"
    container.start()
    wait_until(lambda: "program" in text(log), "the program ran")
    assert text(log) == "hook\nprogram\n"


@must("Poststart", 1, says="after the program was executed, before start returns")
def test_poststart(container: Container) -> None:
    script = f"pid=$(sed -n '{PID}'); tr '\\0' ' ' < /proc/$pid/cmdline > $LOG"
    set_hooks(container, POSTSTART, hook(container, POSTSTART, script))
    container.create()
    assert not log_of(container, POSTSTART).exists(), "ran at create"
    container.start()
    assert "sleep 1000" in text(log_of(container, POSTSTART))


@must("Poststop", 1, says="after the container is deleted, before delete returns")
def test_poststop(container: Container) -> None:
    checks = [
        f"test -e {top}{container.cgroups_path} && echo {top} >> $LOG" for top in _cgroup_tops()
    ]
    script = "\n".join([*checks, "echo ran >> $LOG"])
    set_hooks(container, POSTSTOP, hook(container, POSTSTOP, script))
    container.create()
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")
    assert not log_of(container, POSTSTOP).exists(), "ran before delete"
    container.delete()
    assert text(log_of(container, POSTSTOP)) == "ran\n"


def _cgroup_tops() -> set[str]:
    lines = [line.split() for line in proc.mountinfo()]
    return {fields[4] for fields in lines if " - cgroup" in " ".join(fields)}
