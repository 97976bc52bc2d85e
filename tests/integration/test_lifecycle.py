# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a container (runtime.md), and the words engines look for when it is refused."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import Container, Runtime, cgroup, proc
from tests.integration.conftest import MakeContainer


def test_create_start_kill_delete(container: Container) -> None:
    container.create()
    assert container.status == "created"
    waiting = container.pid
    assert proc.is_running(waiting)

    container.start()
    assert container.status == "running"
    assert container.pid == waiting
    assert proc.command(waiting) == "/bin/sleep 1000"

    # sleep is pid 1 of its namespace: TERM without a handler doesn't reach it.
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    assert container.remains() == []
    assert "does not exist" in container.refused("state")


def test_the_program_does_not_run_before_start(container: Container) -> None:
    container.shell("echo ran > /ran; sleep 1000")
    container.create()
    assert not (container.bundle.rootfs / "ran").exists()
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")


def test_state_of_a_created_container(container: Container) -> None:
    container.config["annotations"] = {"org.example.key": "a value"}
    container.create()
    state = container.state()
    assert re.fullmatch(r"1\.\d+\.\d+(-\S+)?", state["ociVersion"])
    assert state["id"] == container.id
    assert state["status"] == "created"
    assert state["bundle"] == str(container.bundle.directory)
    assert state["annotations"] == {"org.example.key": "a value"}
    assert proc.is_running(state["pid"])
    # The moment it was created, RFC 3339 in UTC; Python reads no more than microseconds.
    created = re.sub(r"\.(\d{1,6})\d*", r".\1", state["created"].replace("Z", "+00:00"))
    assert datetime.fromisoformat(created).utcoffset() == timedelta(0)


def test_state_of_a_stopped_container(container: Container) -> None:
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")
    assert container.state().get("pid", 0) == 0


def test_the_bundle_defaults_to_the_working_directory(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.bundle.save()
    monkeypatch.chdir(container.bundle.directory)
    container.runtime.call("create", container.id).checked()
    assert container.state()["bundle"] == str(container.bundle.directory)


def test_a_changed_config_has_no_effect_after_create(container: Container) -> None:
    container.create()
    container.command("/bin/false")
    container.bundle.save()
    container.start()
    assert proc.command(container.pid) == "/bin/sleep 1000"


def test_namespaces_are_new_ones(container: Container) -> None:
    container.create()
    pid = container.pid
    for kind in ("pid", "mnt", "uts", "ipc", "net"):
        assert proc.namespace(pid, kind) not in ("", proc.namespace("self", kind)), kind
    assert proc.namespace(pid, "user") == proc.namespace("self", "user")


def test_the_process_is_in_the_cgroup_asked_for(container: Container) -> None:
    container.create()
    pid = container.pid
    joined = cgroup.directories(container.cgroups_path)
    assert joined
    assert all(pid in cgroup.processes(place) for place in joined)


def test_limits_are_written(container: Container) -> None:
    container.config["linux"]["resources"] = {"pids": {"limit": 64}}
    container.create()
    controller = "pids" if "pids" in cgroup.hierarchies() else ""
    assert container.cgroup_file(controller, "pids.max").read_text() == "64\n"


# run


def test_run_returns_output_and_status(container: Container) -> None:
    container.shell("echo to stdout; echo to stderr >&2; exit 7")
    result = container.run()
    assert result.status == 7, result
    assert result.stdout == "to stdout\n"
    assert result.stderr == "to stderr\n"
    assert container.remains() == []


def test_run_reports_a_signal_as_a_shell_does(container: Container) -> None:
    # pid 1 can't be killed from inside its namespace: it waits for the signal from outside.
    container.command("/bin/sleep", "1000")
    container.run("--detach").checked()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    container.shell("(kill -9 $$); sh -c 'kill -9 $$'; exit $?")
    assert container.run().status == 128 + 9


def test_run_detached(container: Container) -> None:
    container.run("--detach").checked()
    assert container.status == "running"


def test_stdin_reaches_the_program(container: Container, directory: Path) -> None:
    container.shell("read line; echo got $line")
    container.bundle.save()
    place = str(container.bundle.directory)
    (directory / "input").write_text("a line\n")
    with (directory / "input").open() as stream:
        result = container.runtime.call("run", "--bundle", place, container.id, stdin=stream)
    assert result.checked().stdout == "got a line\n"


def test_inside_it_is_alone(container: Container) -> None:
    container.config["hostname"] = "alone"
    shown = container.inside("echo $$; hostname; ls -d /proc/[0-9]* | wc -l; id -u; pwd")
    # The shell, and wc with ls gone or not yet: fewer than a handful in any case.
    pid, hostname, processes, uid, directory = shown.split("\n")
    assert (pid, hostname, uid, directory) == ("1", "alone", "0", "/")
    assert int(processes) <= 3


# pid files


def test_create_writes_the_pid_file(container: Container, directory: Path) -> None:
    container.create("--pid-file", str(directory / "pid"))
    # Engines read it as a whole number without a newline.
    assert (directory / "pid").read_text() == str(container.pid)


def test_run_detached_writes_the_pid_file(container: Container, directory: Path) -> None:
    container.run("--detach", "--pid-file", str(directory / "pid")).checked()
    assert (directory / "pid").read_text() == str(container.pid)


# Refusals: the words are runc's, which containerd and podman look for.


def test_start_of_a_running_container_is_refused(container: Container) -> None:
    container.run("--detach").checked()
    assert "already running" in container.refused("start")
    assert container.status == "running"


def test_start_of_a_stopped_container_is_refused(container: Container) -> None:
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")
    assert "cannot start a container that has stopped" in container.refused("start")


def test_kill_of_a_stopped_container_is_refused(container: Container) -> None:
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")
    assert "container not running" in container.refused("kill")


def test_delete_of_a_running_container_is_refused(container: Container) -> None:
    container.run("--detach").checked()
    assert "is not stopped" in container.refused("delete")
    assert container.status == "running"


@pytest.mark.peer_fails(
    "runc",
    "deletes a created container; runtime.md, Delete: attempting to delete a container that is "
    "not stopped MUST have no effect and MUST generate an error",
)
def test_delete_of_a_created_container_is_refused(container: Container) -> None:
    container.create()
    assert "is not stopped" in container.refused("delete")
    assert container.status == "created"


def test_force_deletes_a_running_container(container: Container) -> None:
    container.run("--detach").checked()
    pid = container.pid
    container.delete("--force")
    assert not proc.is_running(pid)
    assert container.remains() == []


def test_force_deletes_a_created_container(container: Container) -> None:
    container.create()
    pid = container.pid
    container.delete("--force")
    assert not proc.is_running(pid)
    assert container.remains() == []


@pytest.mark.parametrize("command", ["state", "start", "kill", "delete"])
def test_an_unknown_container(runtime: Runtime, command: str) -> None:
    assert "does not exist" in runtime.refused(command, "unknown")


def test_force_delete_of_an_unknown_container_succeeds(runtime: Runtime) -> None:
    runtime.delete("unknown", "--force")


def test_an_id_is_taken_once(container: Container) -> None:
    container.create()
    place = str(container.bundle.directory)
    assert "already exists" in container.refused("create", "--bundle", place)
    # The refused one must not have touched the first.
    container.start()
    assert container.status == "running"


def test_an_id_is_free_after_delete(container: Container) -> None:
    container.create()
    container.delete("--force")
    container.create()
    assert container.status == "created"


@pytest.mark.parametrize("container_id", ["", ".", "..", "a/b", "../up", "a b", "ä"])
def test_ids_that_are_no_names_are_refused(container: Container, container_id: str) -> None:
    container.bundle.save()
    place = str(container.bundle.directory)
    container.runtime.refused("create", "--bundle", place, container_id)
    assert container.runtime.list() == []


def test_the_whole_alphabet_of_ids(container: Container) -> None:
    container.id += "_Z.z+0-"
    container.create()
    assert container.state()["id"] == container.id


# Failures of create leave nothing


def test_a_missing_program_fails_and_leaves_nothing(container: Container) -> None:
    container.command("/bin/no-such-program")
    container.bundle.save()
    stderr = container.refused("run", "--bundle", str(container.bundle.directory))
    assert "no-such-program" in stderr
    assert "no such file or directory" in stderr
    assert container.remains() == []


def test_a_program_missing_in_path_has_its_own_words(container: Container) -> None:
    container.command("no-such-program")
    container.bundle.save()
    stderr = container.refused("run", "--bundle", str(container.bundle.directory))
    assert "executable file not found in $PATH" in stderr
    assert container.remains() == []


def test_a_mount_that_fails_is_named_and_leaves_nothing(container: Container) -> None:
    container.bundle.set(
        "/mounts/-",
        {"destination": "/data", "source": "/no/such/source", "options": ["rbind"]},
    )
    container.bundle.save()
    stderr = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/no/such/source" in stderr
    assert container.remains() == []


def test_a_missing_bundle_is_named(runtime: Runtime) -> None:
    assert "/no/such/bundle" in runtime.refused("create", "--bundle", "/no/such/bundle", "c")


def test_a_config_that_is_not_json_is_refused(container: Container) -> None:
    (container.bundle.directory / "config.json").write_text('{"ociVersion": ')
    container.refused("create", "--bundle", str(container.bundle.directory))
    assert container.remains() == []


# list


def test_list_of_nothing(runtime: Runtime) -> None:
    assert runtime.list() == []


def test_list_has_every_container(make_container: MakeContainer) -> None:
    first, second = make_container(), make_container()
    first.create()
    second.run("--detach").checked()
    listed = {entry["id"]: entry for entry in first.runtime.list()}
    assert listed.keys() == {first.id, second.id}
    assert listed[first.id]["status"] == "created"
    assert listed[second.id]["status"] == "running"
    assert listed[first.id]["pid"] == first.pid


def test_list_quiet_prints_ids(make_container: MakeContainer) -> None:
    first, second = make_container(), make_container()
    first.create()
    second.create()
    printed = first.runtime.call("list", "--quiet").checked().stdout
    assert sorted(printed.split()) == sorted([first.id, second.id])


def test_list_table(container: Container) -> None:
    container.create()
    header, row = container.runtime.call("list").checked().stdout.splitlines()
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.split()[:3] == [container.id, str(container.pid), "created"]


# kill


@pytest.mark.parametrize("signal", ["USR1", "SIGUSR1", "usr1", "sigusr1", "10"])
def test_signals_by_name_and_number(container: Container, signal: str) -> None:
    container.shell("trap 'exit 0' USR1; echo ready > /ready; while :; do sleep 0.1; done")
    container.run("--detach").checked()
    ready = container.bundle.rootfs / "ready"
    while not ready.exists():
        assert container.status == "running"
    container.kill(signal)
    container.wait_for("stopped")


def test_an_unknown_signal_is_refused(container: Container) -> None:
    container.run("--detach").checked()
    assert "nosuchsignal" in container.runtime.refused("kill", container.id, "nosuchsignal").lower()
    assert container.status == "running"


def test_a_created_container_can_be_killed(container: Container) -> None:
    container.create()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()


# The command's own surface


def test_version_is_what_engines_parse(runtime: Runtime) -> None:
    assert re.fullmatch(r"\S+ version \S+", runtime.version())


def test_errors_reach_the_log_as_json(container: Container, directory: Path) -> None:
    log = directory / "log"
    result = container.runtime.call("--log", str(log), "--log-format", "json", "state", "unknown")
    assert result.status == 1
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error"
    assert "does not exist" in last["msg"]
    assert "does not exist" in result.stderr
    assert datetime.fromisoformat(last["time"].replace("Z", "+00:00"))


def test_an_empty_environment_is_enough(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    container.create()
    container.start()
    assert container.status == "running"


def test_the_switch_for_engines_that_delete_created_containers(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCIRT_DELETE_CREATED", "1")
    container.create()
    container.delete()
    assert container.remains() == []
    container.create()
    container.start()
    # A running one is still refused.
    assert container.refused("delete")
    assert container.status == "running"
