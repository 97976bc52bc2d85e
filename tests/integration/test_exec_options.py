# SPDX-License-Identifier: GPL-3.0-or-later
"""exec: its rarer options, many at once, and kill --all where no pid namespace ends them all."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Container, cgroup, proc
from tests.harness.container import PATIENCE_SECONDS
from tests.harness.terminal import ConsoleSocket
from tests.integration.conftest import MakeContainer
from tests.integration.test_exec import NOT_RUN, execute, started
from tests.integration.test_namespaces import ask_for


def pid_of(container: Container, tmp_path: Path, *options: str) -> int:
    """Exec a sleeping program, detached; return its pid."""
    file = tmp_path / "pid"
    options = ("--detach", f"--pid-file={file}", *options)
    execute(container, *options, "/bin/sleep", "1000").checked()
    return int(file.read_text())


def test_pidfd_socket(container: Container, directory: Path, tmp_path: Path) -> None:
    if container.runtime.version().startswith("runc version 1.1"):
        pytest.skip("runc has it since 1.2")
    socket = ConsoleSocket(directory / "pidfd.sock")
    container.create("--pidfd-socket", str(socket.path))
    words, fd = socket.descriptor()
    assert (words, pid_behind(fd)) == (b"standard", container.pid)
    container.start()
    pid = pid_of(container, tmp_path, f"--pidfd-socket={socket.path}")
    words, fd = socket.descriptor()
    assert (words, pid_behind(fd)) == (b"setns", pid)
    socket.close()


def pid_behind(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    os.close(pidfd)
    return int(lines["Pid"])


def test_a_pidfd_socket_that_nobody_listens_on(container: Container, directory: Path) -> None:
    container.bundle.save()
    bundle = ("--bundle", str(container.bundle.directory))
    container.refused("create", *bundle, "--pidfd-socket", str(directory / "none"))


@pytest.mark.parametrize("value", [0, 100, 1000])
def test_oom_score_adj(container: Container, tmp_path: Path, value: int) -> None:
    container.bundle.set("/process/oomScoreAdj", value)
    started(container)
    pid = pid_of(container, tmp_path)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == f"{value}\n"


V1 = "memory" in cgroup.hierarchies()


@pytest.mark.skipif(not V1, reason="names a controller of v1")
def test_a_cgroup_below(container: Container, tmp_path: Path) -> None:
    started(container)
    inner = container.cgroup_file("memory", "inner")
    inner.mkdir()
    try:
        pid = pid_of(container, tmp_path, "--cgroup=memory:inner")
        assert str(pid) in (inner / "cgroup.procs").read_text().split()
        assert str(pid) in container.cgroup_file("pids", "cgroup.procs").read_text().split()
        # The last but one begins with the container's own cgroup's name, and isn't in it.
        beside = f"../{container.cgroups_path.rpartition('/')[2]}-evil"
        for wrong in ("memory:none", "memory:../..", "..", beside, "nothing:inner"):
            result = execute(container, f"--cgroup={wrong}", "/bin/true")
            assert result.status == NOT_RUN, str(result)
    finally:
        container.runtime.call("kill", "--all", container.id, "KILL").checked()
        remove_when_empty(inner)


# In the first process's own cgroup, below the container's, which then takes no other: as an init
# such as systemd makes it. Prints the cgroups of a program that is executed then.
IN_CGROUP2_ALONE = """
set -e
mount --bind "$1" /sys/fs/cgroup
ocirt=$2 bundle=$3 id=$4 place=/sys/fs/cgroup$5
"$ocirt" run -d -b "$bundle" "$id" >/dev/null 2>&1 </dev/null
trap '"$ocirt" delete --force "$id"' EXIT
mkdir $place/init
cat $place/cgroup.procs >$place/init/cgroup.procs
echo +hugetlb >$place/cgroup.subtree_control
"$ocirt" exec "$id" cat /proc/self/cgroup
! "$ocirt" exec --cgroup / "$id" true
"""


def test_where_the_containers_cgroup_takes_nobody(container: Container, tmp_path: Path) -> None:
    """cgroup v2: a program goes to where init is."""
    top = cgroup.hierarchies().get("")
    if top is None or "hugetlb" not in (top / "cgroup.controllers").read_text().split():
        pytest.skip("needs a cgroup2 mount with the controller hugetlb")
    launcher = tmp_path / "runtime"
    runtime = container.runtime
    launcher.write_text(f'#!/bin/sh\nexec {runtime.executable} --root {runtime.root} "$@"\n')
    launcher.chmod(0o755)
    container.bundle.save()
    words = (top, launcher, container.bundle.directory, container.id, container.cgroups_path)
    argv = ["unshare", "--mount", "sh", "-c", IN_CGROUP2_ALONE, "sh", *map(str, words)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended
    assert f"0::{container.cgroups_path}/init\n" in ended.stdout


def remove_when_empty(directory: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (directory / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    directory.rmdir()


@pytest.mark.skipif(V1, reason="needs cgroup v2 alone")
def test_a_cgroup_v2_below(container: Container, tmp_path: Path) -> None:
    started(container)
    inner = container.cgroup_file("", "inner")
    inner.mkdir()
    try:
        pid = pid_of(container, tmp_path, "--cgroup=inner")
        assert str(pid) in (inner / "cgroup.procs").read_text().split()
        for wrong in ("none", "../..", "memory:inner"):
            result = execute(container, f"--cgroup={wrong}", "/bin/true")
            assert result.status == NOT_RUN, str(result)
    finally:
        container.runtime.call("kill", "--all", container.id, "KILL").checked()
        remove_when_empty(inner)


@contextmanager
def paused(container: Container) -> Iterator[None]:
    container.freeze(frozen=True)
    try:
        yield
    finally:
        container.freeze(frozen=False)


def test_in_a_paused_container(container: Container) -> None:
    started(container)
    runtime = container.runtime
    words = [runtime.executable, "--root", str(runtime.root), "exec", "--ignore-paused"]
    words += [container.id, "/bin/echo", "thawed"]
    with paused(container):
        result = execute(container, "/bin/true")
        assert result.status == NOT_RUN
        assert "cannot exec in a paused container" in result.stderr
        patient = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        time.sleep(0.1)
        assert patient.poll() is None
    assert patient.communicate(timeout=PATIENCE_SECONDS)[0] == b"thawed\n"
    assert patient.returncode == 0


def test_a_paused_container_can_be_ended(container: Container) -> None:
    """What waits in it for the container to go on doesn't keep `delete --force` from its work."""
    started(container)
    runtime = container.runtime
    words = [runtime.executable, "--root", str(runtime.root), "exec", "--ignore-paused"]
    words += [container.id, "/bin/sleep", "1000"]
    state = container.cgroup_file("freezer", "freezer.state")
    state.write_text("FROZEN")
    patient = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_processes(container, 2)
    container.delete("--force")
    assert container.remains() == []
    assert patient.wait(PATIENCE_SECONDS) != 0


def test_kill_of_a_paused_container(container: Container) -> None:
    started(container)
    container.cgroup_file("freezer", "freezer.state").write_text("FROZEN")
    container.kill("KILL")
    container.wait_for("stopped")


def test_in_a_created_container(container: Container) -> None:
    """As runc and crun have it: everything is there but the program."""
    container.shell("echo started >/tmp/started; exec sleep 1000")
    container.create()
    assert execute(container, "/bin/echo", "early").checked().stdout == "early\n"
    assert container.status == "created"
    container.start()
    assert container.status == "running"


def process_file(tmp_path: Path, **fields: object) -> str:
    """Return the option that names a process file, with what every one has to have."""
    file = tmp_path / "process.json"
    script = "ulimit -Sn; grep CapEff /proc/self/status"
    args = ["/bin/sh", "-c", script]
    file.write_text(json.dumps({"cwd": "/", "env": ["PATH=/bin"], "args": args, **fields}))
    return f"--process={file}"


def test_what_a_process_file_leaves_open(container: Container, tmp_path: Path) -> None:
    """It is as the container has it; what is there, if only empty, isn't."""
    started(container)
    own = execute(container, "/bin/grep", "CapEff", "/proc/self/status").checked().stdout
    shown = execute(container, process_file(tmp_path)).checked().stdout
    assert own in shown and "0" * 16 not in own
    shown = execute(container, process_file(tmp_path, capabilities={})).checked().stdout
    assert "0" * 16 in shown


@pytest.mark.peer_fails("runc", "1.1 takes no limits from the container then")
def test_limits_that_a_process_file_leaves_open(container: Container, tmp_path: Path) -> None:
    container.bundle.set("/process/rlimits", [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}])
    started(container)
    shown = execute(container, process_file(tmp_path)).checked().stdout
    assert shown.split()[0] == "77"


def test_a_capability_that_nobody_knows(container: Container, tmp_path: Path) -> None:
    """config.md: a warning, not an error."""
    sets = {"bounding": ["CAP_NO_SUCH", "CAP_KILL"], "permitted": ["CAP_KILL"]}
    sets["effective"] = ["CAP_KILL"]
    result = execute(started(container), process_file(tmp_path, capabilities=sets)).checked()
    assert f"CapEff:\t{1 << 5:016x}\n" in result.stdout
    assert "CAP_NO_SUCH" in result.stderr and "warning" in result.stderr


@pytest.mark.peer_fails("runc", "1.1 ignores them then")
def test_options_beside_a_process_file(container: Container, tmp_path: Path) -> None:
    started(container)
    file = process_file(tmp_path, args=["/bin/sh", "-c", "id -u; id -g; pwd; echo $A"])
    options = ("--user=5:6", "--cwd=/tmp", "--env=A=b")
    shown = execute(container, file, *options).checked().stdout
    assert shown.split() == ["5", "6", "/tmp", "b"]


@pytest.mark.parametrize("option", ["--pid-file", "--pidfd-socket"])
def test_a_program_that_nobody_hears_of(container: Container, directory: Path, option: str) -> None:
    """exec has failed, so nothing of it runs."""
    if option == "--pidfd-socket" and container.runtime.version().startswith("runc version 1.1"):
        pytest.skip("runc has it since 1.2")
    started(container)
    for more in ((), ("--detach",)):
        result = execute(container, *more, f"{option}={directory}/none/file", "/bin/sleep", "1000")
        assert result.status == NOT_RUN
        assert str(directory / "none") in result.stderr
        assert container.processes() == [container.pid]


@pytest.mark.parametrize("entry", ["NAME", "=value", ""])
def test_an_environment_that_is_none(container: Container, entry: str) -> None:
    result = execute(started(container), f"--env={entry}", "/bin/env")
    assert (result.status, result.stdout) == (NOT_RUN, "")
    assert "environment variable" in result.stderr


def test_in_a_joined_user_namespace(make_container: MakeContainer) -> None:
    """The user namespace is somebody else's: its ids are found in /proc, not in config.json."""
    first, second = make_container(), make_container()
    ask_for(first, "pid", "mount", "uts", "ipc", "network", "user")
    started(first)
    ask_for(second, "pid", "mount", "uts", "ipc", "network", user=f"/proc/{first.pid}/ns/user")
    if "runc" in second.runtime.version():
        second.bundle.set("/linux/uidMappings", first.bundle.get("/linux/uidMappings"))
        second.bundle.set("/linux/gidMappings", first.bundle.get("/linux/gidMappings"))
    started(second)
    result = execute(second, "--user=3:4", "/bin/sh", "-c", "id -u; id -g; echo x >&2")
    assert (result.stdout, result.stderr) == ("3\n4\n", "x\n")
    assert proc.namespace(second.pid, "user") == proc.namespace(first.pid, "user")


def test_stdio_belongs_to_the_user(container: Container) -> None:
    """A pipe can be opened again by name; it is the caller's own, so the user must own it."""
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    started(container)
    runtime = container.runtime
    words = [runtime.executable, "--root", str(runtime.root), "exec", "--user=3:4", container.id]
    words += ["/bin/sh", "-c", "echo again >/proc/self/fd/1"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "again\n", ended.stderr


def test_two_hundred_at_once(container: Container) -> None:
    """As kubelet's probes do it: none is lost, and each has its own exit status."""
    started(container)

    def one(number: int) -> tuple[int, str]:
        result = execute(container, "/bin/sh", "-c", f"echo {number}; exit {number}")
        return result.status, result.stdout

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(one, range(200))) == [(n, f"{n}\n") for n in range(200)]
    assert len(container.processes()) == 1


@pytest.mark.parametrize("options", [("--all",), ()])
def test_kill_where_the_pid_namespace_is_the_hosts(
    container: Container, options: tuple[str, ...]
) -> None:
    """There init's end ends nobody else: the cgroup says who is meant."""
    ask_for(container, "mount", "uts", "ipc", "network")
    container.shell("sleep 1000 & sleep 1000 & wait")
    started_as_it_is(container)
    wait_for_processes(container, 3)
    if not options and container.runtime.version().startswith("runc version 1.1"):
        pytest.skip("runc does so since 1.2")
    container.runtime.call("kill", *options, container.id, "KILL").checked()
    wait_for_processes(container, 0)
    container.wait_for("stopped")


def test_other_signals_reach_init_alone(container: Container) -> None:
    ask_for(container, "mount", "uts", "ipc", "network")
    container.shell("trap 'exit 0' USR1; sleep 1000 & while :; do sleep 0.05; done")
    started_as_it_is(container)
    wait_for_processes(container, 3)
    container.kill("USR1")
    container.wait_for("stopped")
    assert container.processes(), "the one in the background should be there"
    container.delete()
    assert not container.processes()


def started_as_it_is(container: Container) -> None:
    container.create()
    container.start()


def wait_for_processes(container: Container, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(container.processes()) != count:
        assert time.monotonic() < deadline, container.processes()
        time.sleep(0.01)
