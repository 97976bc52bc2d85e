# SPDX-License-Identifier: GPL-3.0-or-later
"""exec: another process in a running container, with all that the container's own has."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness import Container, proc
from tests.harness.runtime import Result
from tests.integration.conftest import MakeContainer
from tests.integration.test_namespaces import LINKS, MAPPINGS, ask_for

# That of a failed exec, which tells it from a program's own.
NOT_RUN = 255


def started(container: Container) -> Container:
    """Start a container that does nothing."""
    container.command("/bin/sleep", "1000")
    container.create()
    container.start()
    return container


def execute(container: Container, *args: str) -> Result:
    """Options first, then -- not needed: the program and its arguments."""
    options = [a for a in args if a.startswith("--")]
    return container.runtime.call("exec", *options, container.id, *args[len(options) :])


def test_output_and_exit_status(container: Container) -> None:
    started(container)
    result = execute(container, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.status, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert execute(container, "/bin/sh", "-c", "kill -TERM $$").status == 128 + signal.SIGTERM


def test_it_is_in_every_namespace(container: Container, tmp_path: Path) -> None:
    started(container)
    pid_file = tmp_path / "pid"
    execute(container, "--detach", f"--pid-file={pid_file}", "/bin/sleep", "1000").checked()
    pid = int(pid_file.read_text())
    for name in LINKS.values():
        if name != "time" or os.path.exists("/proc/self/ns/time"):
            assert proc.namespace(pid, name) == proc.namespace(container.pid, name)
    assert pid in container.processes()
    assert os.readlink(f"/proc/{pid}/root") == "/"


def test_in_a_user_namespace(container: Container) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    started(container)
    result = execute(container, "/bin/sh", "-c", "id -u; cat /proc/self/uid_map").checked()
    uid, mapping = result.stdout.splitlines()
    first = MAPPINGS[0]
    assert uid == "0"
    assert mapping.split() == [str(first[k]) for k in ("containerID", "hostID", "size")]


def test_in_a_joined_pid_namespace(make_container: MakeContainer) -> None:
    first, second = started(make_container()), make_container()
    ask_for(second, "mount", "uts", "ipc", "network", pid=f"/proc/{first.pid}/ns/pid")
    started(second)
    listing = execute(second, "/bin/ps").checked().stdout
    assert listing.count("sleep 1000") == 2


def test_user_groups_and_environment(container: Container) -> None:
    started(container)
    script = 'id -u; id -g; id -G; echo "$A"; pwd'
    options = ("--user=1000:1001", "--additional-gids=5", "--env=A=b", "--cwd=/tmp")
    result = execute(container, *options, "/bin/sh", "-c", script).checked()
    assert result.stdout.split("\n")[:5] == ["1000", "1001", "1001 5", "b", "/tmp"]


def test_capabilities_are_the_containers(container: Container) -> None:
    started(container)
    own = Path(f"/proc/{container.pid}/status").read_text()
    theirs = execute(container, "/bin/cat", "/proc/self/status").checked().stdout
    pick = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp:")
    assert [x for x in own.splitlines() if x.startswith(pick)] == [
        x for x in theirs.splitlines() if x.startswith(pick)
    ]


def test_the_filter_is_the_containers(container: Container) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    container.bundle.set("/linux/seccomp", profile)
    started(container)
    result = execute(container, "/bin/mkdir", "/tmp/x")
    assert result.status == 1
    assert "not supported" in result.stderr


def test_limits_are_the_containers(container: Container) -> None:
    container.bundle.set("/process/rlimits", [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}])
    started(container)
    assert execute(container, "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").stdout == "77\n99\n"


@pytest.mark.parametrize("args", [("nope",), ("/bin/nope",), ("/etc/passwd",), ("--cwd=/no", "sh")])
def test_what_cant_be_run(container: Container, args: tuple[str, ...]) -> None:
    started(container)
    before = container.processes()
    result = execute(container, *args)
    assert result.status == NOT_RUN, str(result)
    assert result.stderr.strip()
    assert container.processes() == before


MISREAD = pytest.mark.peer_fails("runc", "1.1 takes it for 0; CVE-2026-30892 is of this kind")


@pytest.mark.parametrize(
    "user",
    [
        "1x",
        pytest.param("", marks=MISREAD),
        "4294967295",
        pytest.param("4294967296", marks=MISREAD),
        "-1",
        "1:",
        ":1",
        "1:2:3",
        "root",
        "0x1",
        " 1",
    ],
)
def test_ids_are_read_strictly(container: Container, user: str) -> None:
    started(container)
    result = execute(container, f"--user={user}", "/bin/id")
    assert result.status == NOT_RUN
    assert result.stdout == ""


def test_only_in_a_running_container(container: Container) -> None:
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")
    assert execute(container, "/bin/true").status == NOT_RUN


def test_a_process_file(container: Container, tmp_path: Path) -> None:
    started(container)
    file = tmp_path / "process.json"
    file.write_text('{"cwd": "/tmp", "args": ["/bin/pwd"], "env": ["PATH=/bin"]}')
    assert execute(container, f"--process={file}").checked().stdout == "/tmp\n"


def test_many_at_once(container: Container) -> None:
    started(container)

    def one(number: int) -> tuple[int, str]:
        result = execute(container, "/bin/sh", "-c", f"echo {number}; exit {number}")
        return result.status, result.stdout

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(50))) == [(n, f"{n}\n") for n in range(50)]
    assert len(container.processes()) == 1


def test_descriptors(container: Container, tmp_path: Path) -> None:
    """Nothing of the runtime's is open in the program; what the caller preserves is."""
    started(container)
    file = tmp_path / "pid"
    execute(container, "--detach", f"--pid-file={file}", "/bin/sleep", "1000").checked()
    assert sorted(os.listdir(f"/proc/{file.read_text()}/fd")) == ["0", "1", "2"]
    argv = ["/bin/sh", "-c", 'exec "$@" 3>&1 >/dev/null', "sh", container.runtime.executable]
    argv += ["--root", str(container.runtime.root), "exec", "--preserve-fds=1", container.id]
    argv += ["/bin/sh", "-c", "echo kept >&3"]
    ended = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "kept\n"), ended.stderr


@pytest.mark.parametrize("descriptor", range(3, 12))
def test_a_directory_that_leaked(container: Container, descriptor: int) -> None:
    """CVE-2024-21626: neither one of the caller's nor one of ours is a way out of the container."""
    started(container)
    runtime = container.runtime
    argv = ["/bin/bash", "-c", f'exec {descriptor}</; exec "$@"', "bash", runtime.executable]
    argv += ["--root", str(runtime.root), "exec", f"--cwd=/proc/self/fd/{descriptor}"]
    argv += [container.id, "/bin/pwd"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (NOT_RUN, ""), ended
    assert "chdir to cwd" in ended.stderr


def test_a_preserved_directory_is_no_working_directory(container: Container) -> None:
    started(container)
    runtime = container.runtime
    argv = ["/bin/sh", "-c", 'exec 3</; exec "$@"', "sh", runtime.executable]
    argv += ["--root", str(runtime.root), "exec", "--preserve-fds=1", "--cwd=/proc/self/fd/3"]
    argv += [container.id, "/bin/pwd"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (NOT_RUN, ""), ended


@pytest.mark.parametrize(
    ("cwd", "words"),
    [
        ("tmp", "Cwd must be an absolute path"),
        ("/none", 'chdir to cwd ("/none") set in config.json failed: no such file or directory'),
        ("/bin/sh", 'chdir to cwd ("/bin/sh") set in config.json failed: not a directory'),
    ],
)
def test_a_working_directory_that_is_none(container: Container, cwd: str, words: str) -> None:
    result = execute(started(container), f"--cwd={cwd}", "/bin/true")
    assert result.status == NOT_RUN
    assert words in result.stderr.replace('\\"', '"')


@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_working_directory_that_is_not_everybodys(container: Container, user: str) -> None:
    """Root enters it before it becomes the user; a link in it leads where the container sees it."""
    private = container.bundle.rootfs / "private"
    private.mkdir(mode=0o700)
    (container.bundle.rootfs / "link").symlink_to("/private")
    started(container)
    result = execute(container, f"--user={user}", "--cwd=/link", "/bin/pwd")
    assert (result.status, result.stdout) == (0, "/private\n"), result
