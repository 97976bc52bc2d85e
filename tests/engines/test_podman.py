# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman's everyday operations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.podman import Podman

OFFLINE = ("--network", "none")


def test_it_uses_this_runtime(podman: Podman, executable: str) -> None:
    info = json.loads(podman.call("info", "--format", "json").checked().stdout)
    assert info["host"]["ociRuntime"]["path"] == executable


@pytest.mark.parametrize("network", ["none", "host", "podman"])
def test_run(podman: Podman, network: str) -> None:
    script = "echo out; echo err >&2; ls /sys/class/net; exit 7"
    result = podman.run("--rm", "--network", network, "busybox", "sh", "-c", script)
    assert result.status == 7, str(result)
    assert result.stderr == "err\n"
    lines = result.stdout.split()
    assert lines[0] == "out" and "lo" in lines
    assert ("eth0" in lines) == (network == "podman")


@pytest.mark.parametrize(
    ("program", "status"), [("/no/such", 127), ("nope", 127), ("/etc/passwd", 126), ("/etc", 126)]
)
def test_what_cant_be_run(podman: Podman, program: str, status: int) -> None:
    """Podman reads the runtime's words for its exit status."""
    result = podman.run("--rm", *OFFLINE, "busybox", program)
    assert result.status == status, str(result)


def test_at_a_terminal(podman: Podman) -> None:
    session = podman.at_terminal("run", "--rm", "-it", *OFFLINE, "-e", "PS1=$ ", "busybox", "sh")
    session.wait_for("$ ")
    session.type("tty; stty size; exit 5\n")
    session.wait_for("/dev/pts/0\r\n24 80\r\n")
    session.rest()
    assert session.status() == 5
    session.close()


def test_in_the_background(podman: Podman) -> None:
    """run -d, ps, logs, exec, exec -it, stop, rm."""
    script = "trap 'echo ending; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    container = podman.started(*OFFLINE, "--name", "background", "busybox", "sh", "-c", script)
    assert container in podman.call("ps", "--no-trunc", "--quiet").checked().stdout
    result = podman.call(
        "exec",
        "-e",
        "A=b",
        "-u",
        "5:6",
        "-w",
        "/tmp",
        "background",
        "sh",
        "-c",
        "echo $A; id -u; id -g; pwd; exit 9",
    )
    assert (result.status, result.stdout) == (9, "b\n5\n6\n/tmp\n"), str(result)
    assert podman.call("exec", "background", "nope").status == 127
    session = podman.at_terminal("exec", "-it", "background", "sh", "-c", "tty; read x; exit $x")
    session.wait_for("/dev/pts/")
    session.type("4\n")
    session.rest()
    assert session.status() == 4
    session.close()
    podman.call("stop", "background").checked()
    assert podman.call("logs", "background").checked().stdout == "ready\nending\n"
    state = podman.call(
        "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "background"
    )
    assert state.checked().stdout == "exited 3\n"
    podman.call("rm", "background").checked()
    assert podman.call("container", "exists", "background").status == 1


def test_kill_and_wait(podman: Podman) -> None:
    script = "trap 'exit 42' USR1; while :; do sleep 0.05; done"
    container = podman.started(*OFFLINE, "busybox", "sh", "-c", script)
    podman.call("kill", "--signal", "USR1", container).checked()
    assert podman.call("wait", container).checked().stdout == "42\n"
    podman.call("rm", container).checked()


def test_rm_of_one_that_runs(podman: Podman) -> None:
    container = podman.started(*OFFLINE, "busybox", "sleep", "1000")
    podman.call("rm", "--force", "--time", "0", container).checked()
    assert podman.call("container", "exists", container).status == 1


def test_restart(podman: Podman) -> None:
    container = podman.started(*OFFLINE, "busybox", "sleep", "1000")
    podman.call("restart", "--time", "0", container).checked()
    assert podman.call("exec", container, "echo", "back").checked().stdout == "back\n"
    podman.call("rm", "--force", "--time", "0", container).checked()


def test_limits(podman: Podman) -> None:
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max"
    limits = ("--memory", "64m", "--pids-limit", "50")
    result = podman.run("--rm", *OFFLINE, *limits, "busybox", "sh", "-c", script)
    assert result.checked().stdout.split() == [str(64 << 20), "50"]


def test_volumes_and_read_only(podman: Podman, scratch: Path) -> None:
    place = scratch / "volume"
    place.mkdir()
    options = ("--read-only", "--volume", f"{place}:/data", "--tmpfs", "/scratch:size=1m")
    script = "echo x >/data/file; echo x >/scratch/file; ! touch /file 2>/dev/null"
    podman.run("--rm", *OFFLINE, *options, "busybox", "sh", "-c", script).checked()
    assert (place / "file").read_text() == "x\n"


def test_user_and_capabilities(podman: Podman) -> None:
    script = "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status"
    options = ("--user", "1000", "--cap-drop", "all", "--security-opt", "no-new-privileges")
    result = podman.run("--rm", *OFFLINE, *options, "busybox", "sh", "-c", script).checked()
    assert result.stdout.split() == [
        "1000",
        "CapEff:",
        "0" * 16,
        "NoNewPrivs:",
        "1",
        "Seccomp:",
        "2",
    ]


def test_a_user_namespace(podman: Podman) -> None:
    options = ("--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000")
    script = "cat /proc/self/uid_map; id -u; touch /file && stat -c %u /file"
    result = podman.run("--rm", *OFFLINE, *options, "busybox", "sh", "-c", script).checked()
    assert result.stdout.split() == ["0", "100000", "1000", "0", "0"]


def test_containers_that_share_namespaces(podman: Podman) -> None:
    first = podman.started(*OFFLINE, "busybox", "sleep", "1000")
    shared = ("--pid", f"container:{first}", "--network", f"container:{first}")
    result = podman.run("--rm", *shared, "busybox", "ps").checked()
    assert "sleep 1000" in result.stdout
    podman.call("rm", "--force", "--time", "0", first).checked()


def test_ten_at_once(podman: Podman) -> None:
    containers = [podman.started(*OFFLINE, "busybox", "sleep", "1000") for _ in range(10)]
    podman.call("rm", "--force", "--time", "0", *containers).checked()
