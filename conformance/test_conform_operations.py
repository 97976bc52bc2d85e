# SPDX-License-Identifier: GPL-3.0-or-later
"""runtime.md but for the hooks: state and the five operations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conformance.conftest import MakeContainer
from conformance.probe import (
    assert_create_refused,
    exists,
    mounts_at,
    text,
    try_create,
    wait_until,
)
from conformance.requirement import Level, requirement
from tests.harness import Container, Runtime, cgroup, proc

must = partial(requirement, "runtime.md", level=Level.MUST)
must_not = partial(requirement, "runtime.md", level=Level.MUST_NOT)

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def state_schema() -> dict[str, Any]:
    """Return the schema with what it takes from another file put in."""
    # The way to give jsonschema several files has changed between its releases.
    whole: dict[str, Any] = json.loads(
        (SCHEMAS / "state.json").read_text().replace("defs.json#", "#")
    )
    whole["definitions"] = json.loads((SCHEMAS / "defs.json").read_text())["definitions"]
    return whole


def stopped(container: Container) -> Container:
    """Bring a container to an end, but don't delete it."""
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")
    return container


@must("Scope of a Container", 1, says="who created a container can use every operation on it")
@must("Operations", 1, says="state, create, start, kill and delete are there")
def test_operations(container: Container) -> None:
    container.create()
    assert container.status == "created"
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    assert not exists(container)


@must("State", 4, says="an id is unique")
@must("Create", 3, says="an id that is in use is refused")
@must_not("Create", 3, says="no new container for an id in use")
def test_id_in_use(container: Container, make_container: MakeContainer) -> None:
    container.create()
    before = container.state()
    second = make_container()
    second.id = container.id
    assert try_create(second).status > 0
    assert container.state() == before
    assert not cgroup.directories(second.cgroups_path), "made a cgroup for the second"


@must("Create", 3, says="an invalid id is refused")
@pytest.mark.parametrize("bad", ["", "../up", "a/b"])
def test_invalid_id(container: Container, bad: str) -> None:
    good, container.id = container.id, bad
    try:
        assert try_create(container).status > 0
    finally:
        container.id = good


@must("State", 12, says="a status keeps to its meaning in every phase")
@must("Query State", 4, says="state returns the state")
def test_status(container: Container) -> None:
    container.create()
    assert container.status == "created"
    container.start()
    assert container.status == "running"
    container.kill("KILL")
    container.wait_for("stopped")


@must("State", 21, says="the state's JSON follows its schema")
def test_state_schema(container: Container) -> None:
    schema = state_schema()
    container.config["annotations"] = {"org.example.key": "value"}
    container.create()
    for advance in (container.start, lambda: container.kill("KILL")):
        state = container.state()
        jsonschema.validate(state, schema)
        assert state["id"] == container.id
        assert state["bundle"] == str(container.bundle.directory)
        assert state["annotations"]["org.example.key"] == "value"
        assert os.path.exists(f"/proc/{state['pid']}")
        advance()
    container.wait_for("stopped")
    jsonschema.validate(container.state(), schema)


@must("Lifecycle", 5, says="create makes the environment of config.json")
@must("Lifecycle", 7, says="create makes the resources of config.json")
@must("Create", 4, says="create makes a container")
@must("Create", 5, says="create applies all but process")
def test_environment_after_create(container: Container) -> None:
    container.bundle.set("/linux/resources", {"memory": {"limit": 64 << 20}})
    container.create()
    pid = container.pid
    for kind in ("pid", "mnt", "uts", "ipc", "net"):
        assert proc.namespace(pid, kind) not in ("", proc.namespace("self", kind))
    for entry in container.config["mounts"]:
        assert mounts_at(pid, entry["destination"]), f"no mount at {entry['destination']}"
    enter = ["nsenter", f"--target={pid}", "--uts", "hostname"]
    said = subprocess.run(enter, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "test"
    assert cgroup.directories(container.cgroups_path)
    limits = [
        text(place / name).strip()
        for place in cgroup.directories(container.cgroups_path)
        for name in ("memory.limit_in_bytes", "memory.max")
    ]
    assert str(64 << 20) in limits


@must("Lifecycle", 6, says="an environment that can't be made is an error")
@must("Create", 8, says="a property that can't be applied is an error")
@must_not("Create", 8, says="and no container is made")
@must("Errors", 2, says="an error leaves things as they were")
@pytest.mark.parametrize(
    "pointer, value",
    [
        ("/mounts/-", {"destination": "/x", "source": "/no/such", "options": ["bind"]}),
        ("/mounts/-", {"destination": "/x", "type": "nosuchfs", "source": "x"}),
        ("/linux/sysctl", {"net.no_such.thing": "1"}),
        ("/linux/namespaces/0/path", "/no/such/namespace"),
    ],
)
def test_failing_create(container: Container, pointer: str, value: object) -> None:
    mounts = proc.mountinfo()
    container.bundle.set(pointer, value)
    assert_create_refused(container)
    wait_until(lambda: not container.remains(), "everything of the container is gone")
    assert proc.mountinfo() == mounts


@must_not("Lifecycle", 7, says="create doesn't run the program")
@must_not("Create", 6, says="args aren't applied before start")
@must("Lifecycle", 24, says="start runs the program")
@must("Start", 4, says="start runs the program")
def test_program_runs_at_start(container: Container) -> None:
    container.shell("echo ran $0 > /proof; sleep 1000")
    proof = container.bundle.rootfs / "proof"
    container.create()
    assert not proof.exists()
    container.start()
    wait_until(lambda: text(proof).startswith("ran"), "the program wrote its file")


@must_not("Lifecycle", 8, says="config.json after create has no effect")
def test_config_is_read_once(container: Container) -> None:
    container.shell("echo first > /proof; sleep 1000")
    container.create()
    container.shell("echo second > /proof")
    container.bundle.set("/hostname", "other")
    container.bundle.save()
    container.start()
    proof = container.bundle.rootfs / "proof"
    wait_until(lambda: bool(text(proof)), "the program wrote its file")
    assert text(proof) == "first\n"


@must("Warnings", 2, says="after a warning the operation goes on")
def test_warning_changes_nothing(container: Container) -> None:
    # Nothing but a capability must be warned about (config.md, "Linux Process").
    container.bundle.set("/process/capabilities/bounding/-", "CAP_NO_SUCH")
    container.create()
    container.start()
    assert container.status == "running"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("state", marks=must("Query State", 2, says="state without an id fails")),
        pytest.param("create", marks=must("Create", 2, says="create without an id fails")),
        pytest.param("start", marks=must("Start", 2, says="start without an id fails")),
        pytest.param("kill", marks=must("Kill", 2, says="kill without an id fails")),
        pytest.param("delete", marks=must("Delete", 2, says="delete without an id fails")),
    ],
)
def test_no_id(runtime: Runtime, container: Container, command: str) -> None:
    container.bundle.save()
    place = ["--bundle", str(container.bundle.directory)] if command == "create" else []
    assert runtime.call(command, *place).status > 0


@must("Create", 2, says="create without a bundle fails")
def test_no_bundle(runtime: Runtime, container: Container, directory: Path) -> None:
    # Without --bundle it is the working directory, where none is.
    empty = directory / "empty"
    empty.mkdir()
    assert runtime.call("create", "--bundle", str(empty), container.id).status > 0
    assert not exists(container)


@must("Query State", 3, says="the state of what doesn't exist is an error")
def test_state_of_nothing(runtime: Runtime) -> None:
    assert runtime.call("state", "no-such-container").status > 0


@must("Start", 3, says="starting what isn't created is an error, without effect")
def test_start_of_running(container: Container) -> None:
    container.shell("echo ran >> /proof; sleep 1000")
    container.create()
    container.start()
    proof = container.bundle.rootfs / "proof"
    wait_until(lambda: bool(text(proof)), "the program ran")
    before = container.state()
    assert container.runtime.call("start", container.id).status > 0
    assert container.state() == before
    assert text(proof) == "ran\n"


@must("Start", 3, says="starting what has stopped is an error, without effect")
def test_start_of_stopped(container: Container) -> None:
    stopped(container)
    assert container.runtime.call("start", container.id).status > 0
    assert container.status == "stopped"


@must("Start", 5, says="start without a process is an error")
@pytest.mark.right(
    "process is OPTIONAL, and create must apply all else; both refuse it at create already,"
    " or fail in the container when start has reported success"
)
def test_start_without_process(container: Container) -> None:
    container.bundle.remove("/process")
    container.create()
    assert container.runtime.call("start", container.id).status > 0


@must("Kill", 3, says="a signal to what has stopped is an error, without effect")
def test_kill_of_stopped(container: Container) -> None:
    stopped(container)
    before = container.state()
    assert container.runtime.call("kill", container.id, "KILL").status > 0
    assert container.state() == before


@must("Kill", 4, says="kill sends the signal to the container's process")
@pytest.mark.parametrize("name", ["USR1", "10", "SIGUSR1"])
def test_kill(container: Container, name: str) -> None:
    container.shell("trap 'echo got >> /proof' USR1; echo up > /up; while :; do sleep 0.02; done")
    container.create()
    container.start()
    wait_until(lambda: bool(text(container.bundle.rootfs / "up")), "the trap is set")
    container.kill(name)
    proof = container.bundle.rootfs / "proof"
    wait_until(lambda: text(proof) == "got\n", "the program got the signal")


@must("Kill", 4, says="a created container's process gets signals, too")
def test_kill_of_created(container: Container) -> None:
    container.create()
    container.kill("KILL")
    container.wait_for("stopped")


@must("Delete", 3, says="deleting a running container is an error, without effect")
def test_delete_of_running(container: Container) -> None:
    container.create()
    container.start()
    before = container.state()
    assert container.runtime.call("delete", container.id).status > 0
    assert container.state() == before
    assert proc.is_running(before["pid"])


@must("Delete", 3, says="deleting a created container is an error, without effect")
@pytest.mark.right(
    "the sentence is plain: what isn't stopped isn't deleted. Both end the waiting process"
)
def test_delete_of_created(container: Container) -> None:
    container.create()
    before = container.state()
    assert container.runtime.call("delete", container.id).status > 0
    assert container.state() == before


@must("Delete", 4, says="delete removes what create made")
@must("Lifecycle", 34, says="delete undoes what create did")
def test_delete_removes(container: Container) -> None:
    container.create()
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    assert not container.remains()


@must_not("Delete", 5, says="delete leaves alone what create didn't make")
def test_delete_spares(container: Container, directory: Path) -> None:
    parents = [place.parent for place in _make_parent(container)]
    volume = directory / "volume"
    volume.mkdir()
    (volume / "file").write_text("mine\n")
    container.bundle.set(
        "/mounts/-", {"destination": "/volume", "source": str(volume), "options": ["bind"]}
    )
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        wait_until(
            lambda: proc.namespace(holder.pid, "net") != proc.namespace("self", "net"), "unshared"
        )
        joined = f"/proc/{holder.pid}/ns/net"
        container.bundle.set("/linux/namespaces/4", {"type": "network", "path": joined})
        stopped(container)
        container.delete()
        assert holder.poll() is None
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (volume / "file").read_text() == "mine\n"
    assert (container.bundle.directory / "config.json").exists()
    assert (container.bundle.rootfs / "bin/busybox").exists()
    assert all(parent.is_dir() for parent in parents)


def _make_parent(container: Container) -> list[Path]:
    """Make a cgroup above the container's, in every hierarchy that takes one."""
    above, _, name = container.cgroups_path.rpartition("/")
    container.bundle.set("/linux/cgroupsPath", f"{above}/above/{name}")
    made = []
    for top in set(cgroup.hierarchies().values()):
        place = top / above.lstrip("/") / "above"
        if top.name != "cpuset":
            place.mkdir(parents=True, exist_ok=True)
            made.append(place / name)
    return made
