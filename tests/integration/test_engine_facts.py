# SPDX-License-Identifier: GPL-3.0-or-later
"""What engines (podman's conmon, buildah, containerd's shim) do to a runtime, and expect of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, Runtime, cgroup, proc
from tests.harness.runtime import LIMIT_SECONDS, Result

# What a failed create and a failed exec end with.
FAILED, NOT_RUN = 1, 255


def engine(
    runtime: Runtime,
    *args: str,
    environment: dict[str, str] | None = None,
    before: Callable[[], object] | None = None,
    by: Sequence[str] = (),
) -> Result:
    """Call the runtime with this environment alone, and with before() run in its process.

    by: what executes it, instead of us. before() must leave descriptors above 2 alone:
    subprocess has one there of its own, and closes the others afterwards.
    """
    argv = (*by, runtime.executable, "--root", str(runtime.root), *args)
    log = runtime.root.parent / "engine-stderr"
    with log.open("w") as err:
        ended = subprocess.run(
            argv,
            env=environment,
            preexec_fn=before,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    return Result(argv, ended.returncode, "", log.read_text())


def create(container: Container, **how: Any) -> Result:
    container.bundle.save()
    place = str(container.bundle.directory)
    return engine(container.runtime, "create", "--bundle", place, container.id, **how)


def started(container: Container) -> Container:
    container.command("/bin/sleep", "1000")
    container.create()
    container.start()
    return container


def execute(container: Container, *args: str, **how: Any) -> Result:
    return engine(container.runtime, "exec", container.id, *args, **how)


# 1: how options are written


@pytest.mark.parametrize(
    "spelling",
    [
        ["--bundle", "B"],
        ["--bundle=B"],
        ["-bundle", "B"],
        ["-bundle=B"],
        ["-b", "B"],
        ["-b=B"],
        ["--bundle", "/no/such/place", "--bundle", "B"],
        ["--preserve-fds=0", "--no-new-keyring=true", "-no-pivot=false", "--bundle", "B"],
    ],
)
def test_options_in_every_spelling(container: Container, spelling: list[str]) -> None:
    container.bundle.save()
    place = str(container.bundle.directory)
    options = [word.replace("B", place) if word.endswith("B") else word for word in spelling]
    container.runtime.call("create", *options, container.id).checked()
    assert container.state()["bundle"] == place


def test_an_option_twice_and_one_dash(container: Container) -> None:
    container.command("/bin/true")
    container.run("-no-subreaper", "--no-new-keyring", "--no-new-keyring").checked()


@pytest.mark.parametrize("number", ["9", "15", "10"])
def test_signals_are_numbers(container: Container, number: str) -> None:
    container.shell(
        'trap "echo 15 >/got; exit" TERM; trap "echo 10 >/got; exit" USR1;'
        " echo >/ready; while :; do sleep 0.05; done"
    )
    container.create()
    container.start()
    ready = container.bundle.rootfs / "ready"
    while not ready.exists():
        assert container.status == "running"
    container.kill(number)
    container.wait_for("stopped")
    got = container.bundle.rootfs / "got"
    assert (got.read_text().strip() if got.exists() else "9") == number


# 2: the log


def test_the_log_is_appended_to_and_stderr_has_the_error(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    options = ("--log", str(log), "--log-format", "json")
    for _ in range(2):
        result = engine(runtime, *options, "state", "none")
        assert result.status == FAILED
        assert "container does not exist" in result.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line["level"] == "error"
        assert "container does not exist" in line["msg"]
        assert line["time"].endswith("Z") or line["time"][-6] in "+-"


def test_what_goes_well_leaves_no_error_in_the_log(container: Container, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    options = ("--log", str(log), "--log-format=json")
    container.bundle.save()
    place = str(container.bundle.directory)
    for command in (["create", "--bundle", place], ["start"], ["kill", "--all"], ["state"]):
        words = [*command, container.id, *(["9"] if command[0] == "kill" else [])]
        container.runtime.call(*options, *words).checked()
    assert [
        line for line in log.read_text().splitlines() if json.loads(line)["level"] == "error"
    ] == []


# 3: the words that become an engine's exit status 126 or 127


def prepare(container: Container, kind: str) -> tuple[str, ...]:
    """Make a program that can't be run; return its argv."""
    container.bundle.file("/etc/not-executable", "text\n")
    return {
        "missing": ("/no/such",),
        "missing in PATH": ("no-such",),
        "not executable": ("/etc/not-executable",),
        "a directory": ("/etc",),
    }[kind]


WORDS = [
    ("missing", "no such file or directory"),
    ("missing in PATH", "executable file not found in"),
    ("not executable", "permission denied"),
    ("a directory", "is a directory|permission denied"),
]


@pytest.mark.parametrize(("kind", "words"), WORDS)
def test_create_says_why_a_program_cannot_run(
    container: Container, kind: str, words: str, tmp_path: Path
) -> None:
    container.command(*prepare(container, kind))
    container.bundle.save()
    place = str(container.bundle.directory)
    log, pid = tmp_path / "log", tmp_path / "pid"
    options = ("--log", str(log), "--log-format=json")
    where = ("--bundle", place, "--pid-file", str(pid))
    result = engine(container.runtime, *options, "create", *where, container.id)
    assert result.status == FAILED
    # Engines show the log's last message, or stderr.
    last = json.loads(log.read_text().splitlines()[-1])
    for text in (last["msg"].lower(), result.stderr.lower()):
        assert any(word in text for word in words.split("|")), text
    assert last["level"] == "error"
    assert not pid.exists()
    assert container.remains() == []


@pytest.mark.parametrize(("kind", "words"), WORDS)
def test_exec_says_why_a_program_cannot_run(container: Container, kind: str, words: str) -> None:
    argv = prepare(container, kind)
    result = execute(started(container), *argv)
    assert result.status == NOT_RUN
    text = result.stderr.lower()
    assert any(word in text for word in words.split("|")), text


def test_the_words_are_runcs(container: Container) -> None:
    container.command("/no/such")
    words = 'exec: "/no/such": stat /no/such: no such file or directory'
    assert words in create(container).stderr.replace("\\", "")


# 4: exit statuses


@pytest.mark.parametrize("words", [["state"], ["start"], ["kill"], ["delete"]])
def test_an_unknown_container_is_status_1(runtime: Runtime, words: list[str]) -> None:
    result = engine(runtime, *words, "none")
    assert result.status == FAILED
    assert "container does not exist" in result.stderr


def test_a_second_delete_with_force_succeeds(container: Container) -> None:
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")
    container.delete()
    container.delete("--force")


def test_kill_all_of_a_stopped_container_succeeds(container: Container) -> None:
    container.command("/bin/true")
    container.create()
    container.start()
    container.wait_for("stopped")
    assert engine(container.runtime, "kill", "--all", container.id, "9").status == 0


def test_exec_in_an_unknown_container_fails(runtime: Runtime) -> None:
    result = engine(runtime, "exec", "none", "/bin/true")
    assert result.status in (FAILED, NOT_RUN)  # engines don't tell one from the other here
    assert "does not exist" in result.stderr


# 5: the state that buildah parses


def test_the_keys_of_a_state(container: Container) -> None:
    container.create()
    keys = {"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"}
    state = container.state()
    assert keys <= state.keys()
    assert state["rootfs"] == str(container.bundle.rootfs)
    container.kill("KILL")
    container.wait_for("stopped")
    state = container.state()
    assert keys <= state.keys()
    assert state["pid"] == 0


# 6: hooks


def test_a_hook_gets_the_state(container: Container, directory: Path) -> None:
    seen = directory / "seen"
    container.config["annotations"] = {"org.example": "value"}
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >{seen}"]}
    container.config["hooks"] = {"prestart": [hook]}
    container.create()
    state = json.loads(seen.read_text())
    assert state["id"] == container.id
    assert state["bundle"] == str(container.bundle.directory)
    assert state["annotations"]["org.example"] == "value"
    assert state["pid"] == container.pid
    assert {"ociVersion", "status"} <= state.keys()


def test_a_prestart_hook_reaches_network_and_devices(container: Container, directory: Path) -> None:
    """As docker's bridge and NVIDIA's hook do: by init's pid, while only init could stop them."""
    script = """
        pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/')
        nsenter -t $pid -n ip address add 127.0.0.9/32 dev lo
        grep :devices: /proc/$pid/cgroup >"$0"
        test -e /proc/$pid/root/etc/passwd
    """
    seen = directory / "seen"
    hook = {"path": "/bin/sh", "args": ["sh", "-ec", script, str(seen)]}
    hook["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    container.config["hooks"] = {"prestart": [hook]}
    assert "127.0.0.9" in container.inside("ip address show dev lo")
    assert seen.read_text().endswith(f":devices:{container.cgroups_path}\n")


# 7: descriptors


# As containerd's shim leaks one, and buildah a dozen.
LEAKY = (
    sys.executable,
    "-ISc",
    "import os, sys; [os.dup2(0, fd) for fd in range(3, 16)]; os.execv(sys.argv[1], sys.argv[1:])",
)


def test_they_leak() -> None:
    """Else the tests that follow would show nothing."""
    argv = [*LEAKY, "/bin/ls", "/proc/self/fd"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert {str(fd) for fd in range(16)} <= set(shown)


def test_leaked_descriptors_are_not_the_containers(container: Container) -> None:
    container.command("/bin/sleep", "1000")
    assert create(container, by=LEAKY).status == 0
    assert engine(container.runtime, "start", container.id, by=LEAKY).status == 0
    assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]
    pid_file = container.runtime.root.parent / "pid"
    options = ("--detach", "--pid-file", str(pid_file))
    argv = ("exec", *options, container.id, "/bin/sleep", "1000")
    assert engine(container.runtime, *argv, by=LEAKY).status == 0
    assert sorted(os.listdir(f"/proc/{pid_file.read_text()}/fd")) == ["0", "1", "2"]


def test_preserved_descriptors_are_and_no_more(container: Container) -> None:
    container.command("/bin/sleep", "1000")
    container.bundle.save()
    place = str(container.bundle.directory)
    argv = ("create", "--preserve-fds", "2", "--bundle", place, container.id)
    assert engine(container.runtime, *argv, by=LEAKY).status == 0
    container.start()
    assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2", "3", "4"]


def read_only_output() -> None:
    """As the shim's --null-io has it: writing to stdout or stderr is EBADF."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def closed_output() -> None:
    os.close(1)
    os.close(2)


@pytest.mark.parametrize("output", [read_only_output, closed_output])
def test_stderr_may_be_of_no_use(
    container: Container, output: Callable[[], None], tmp_path: Path
) -> None:
    assert create(container, before=output).status == 0
    assert engine(container.runtime, "start", container.id, before=output).status == 0
    assert container.status == "running"
    log = tmp_path / "log"
    argv = ("--log", str(log), "--log-format=json", "exec", container.id, "/no/such")
    assert engine(container.runtime, *argv, before=output).status == NOT_RUN
    # The message is in the log, and the log didn't take the place of stderr.
    assert len(log.read_text().splitlines()) == 1
    for command in (["kill", container.id, "9"], ["delete", "--force", container.id]):
        assert engine(container.runtime, *command, before=output).status == 0


@pytest.mark.peer_fails("runc", "1.1 hands a closed stderr down as it is")
def test_a_closed_stderr_is_dev_null_in_the_container(container: Container) -> None:
    """A program whose first file becomes its stderr would write messages into it."""
    assert create(container, before=closed_output).status == 0
    container.start()
    for fd in (1, 2):
        found = os.stat(f"/proc/{container.pid}/fd/{fd}")
        assert found.st_rdev == os.makedev(1, 3)


# 8: the environment


def test_hardly_any_environment(container: Container) -> None:
    """As the shim has it: no HOME, and for most commands no PATH."""
    # And the variable that the search for leaks knows our processes by.
    bare = {"XDG_RUNTIME_DIR": "/run/nowhere", "OCIRT_TEST": os.environ["OCIRT_TEST"]}
    container.bundle.save()
    call = container.runtime
    assert create(container, environment=bare).status == 0
    start = engine(call, "start", container.id, environment={"PATH": "/bin:/usr/bin", **bare})
    assert start.status == 0
    assert execute(container, "/bin/true", environment=bare).status == 0
    for words in (["state"], ["kill", "--all"], ["delete", "--force"]):
        end = [container.id, *(["9"] if words[0] == "kill" else [])]
        assert engine(call, *words, *end, environment=bare).status == 0, words


def test_no_environment_at_all(container: Container) -> None:
    # A filter that isn't in the cache yet: the image has plain Python compile it.
    number = int.from_bytes(os.urandom(4), "little")
    rule = {"index": 0, "value": number, "op": "SCMP_CMP_EQ"}
    call = {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [rule]}
    container.bundle.set("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]})
    assert create(container, environment={}).status == 0
    for words in (["start", container.id], ["delete", "--force", container.id]):
        assert engine(container.runtime, *words, environment={}).status == 0


# 10: the process's state


PDEATHSIG = """
#include <stdio.h>
#include <sys/prctl.h>

int main(void)
{
    int number = -1;
    return prctl(PR_GET_PDEATHSIG, &number) || printf("%d\\n", number) < 0;
}
"""


@pytest.fixture
def pdeathsig(container: Container, tmp_path: Path) -> str:
    """A program in the container that prints its parent-death signal (prctl(2))."""
    source = tmp_path / "pdeathsig.c"
    source.write_text(PDEATHSIG)
    target = container.bundle.rootfs / "bin/pdeathsig"
    subprocess.run(["gcc", "-static", "-o", target, source], check=True)
    return "/bin/pdeathsig"


# Sets PR_SET_PDEATHSIG, as conmon and the shim do, and becomes the runtime.
DYING = "import os, prctl, sys; prctl.set_pdeathsig(9); os.execv(sys.argv[1], sys.argv[1:])"


def test_the_parent_death_signal_ends_with_the_runtime(
    container: Container, pdeathsig: str
) -> None:
    container.shell(f"{pdeathsig} >/init; exec sleep 1000")
    container.bundle.save()
    runtime = container.runtime
    place = str(container.bundle.directory)

    def dying(*args: str) -> subprocess.CompletedProcess[bytes]:
        argv = [sys.executable, "-c", DYING, runtime.executable, "--root", str(runtime.root)]
        null = subprocess.DEVNULL
        return subprocess.run([*argv, *args], check=True, stdin=null, stdout=null, stderr=null)

    dying("create", "--bundle", place, container.id)
    assert container.status == "created"
    dying("start", container.id)
    dying("exec", container.id, "/bin/sh", "-c", f"{pdeathsig} >/exec")
    # fork(2) clears it: the program in the shell's own place shows what exec left.
    container.bundle.file("/own.sh", f"#!/bin/sh\nexec {pdeathsig} >/own\n", 0o755)
    dying("exec", container.id, "/own.sh")
    assert container.status == "running"
    for name in ("init", "exec", "own"):
        assert (container.bundle.rootfs / name).read_text() == "0\n", name


def test_a_detached_containers_program_has_no_parent_death_signal(
    container: Container, pdeathsig: str
) -> None:
    container.shell(f"exec {pdeathsig} >/own")
    container.run("--detach").checked()
    container.wait_for("stopped")
    assert (container.bundle.rootfs / "own").read_text() == "0\n"


def signals(pid: int | str, name: str) -> set[int]:
    """Return the numbers of a set of signals in /proc/PID/status."""
    mask = int(proc.status(pid)[name], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def odd_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})


@pytest.mark.peer_fails("runc", "1.1 hands the signals that its caller blocks down")
def test_no_signal_is_blocked_or_ignored_in_the_container(container: Container) -> None:
    container.command("/bin/sleep", "1000")
    assert create(container, before=odd_signals).status == 0
    assert engine(container.runtime, "start", container.id, before=odd_signals).status == 0
    pid_file = container.runtime.root.parent / "pid"
    argv = ("exec", "--detach", "--pid-file", str(pid_file), container.id, "/bin/sleep", "1000")
    assert engine(container.runtime, *argv, before=odd_signals).status == 0
    for pid in (container.pid, int(pid_file.read_text())):
        assert signals(pid, "SigBlk") == set()
        assert signals(pid, "SigIgn") & {signal.SIGPIPE, signal.SIGXFSZ} == set()
        assert signals(pid, "SigPnd") == set()


def test_no_signal_is_blocked_in_hooks(container: Container, directory: Path) -> None:
    hook = {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"grep SigBlk /proc/self/status >>{directory}/h"],
    }
    container.config["hooks"] = {"prestart": [hook], "poststart": [hook], "poststop": [hook]}
    container.command("/bin/true")
    container.bundle.save()
    argv = ("run", "--bundle", str(container.bundle.directory), container.id)
    assert engine(container.runtime, *argv, before=odd_signals).status == 0
    assert (directory / "h").read_text().split()[1::2] == ["0" * 16] * 3


def ignoring() -> None:
    """As Python and others do: the runtime's own caller ignores them."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)


def test_sigpipe_works_whatever_the_caller_ignores(container: Container) -> None:
    container.command("/bin/sleep", "1000")
    assert create(container, before=ignoring).status == 0
    container.start()
    assert signals(container.pid, "SigIgn") & {signal.SIGPIPE, signal.SIGXFSZ} == set()


def deaf() -> None:
    """As a careless daemon does to have no zombies: wait(2) then finds no child."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def test_exit_statuses_whatever_becomes_of_sigchld(container: Container) -> None:
    container.shell("exit 7")
    container.bundle.save()
    argv = ("run", "--bundle", str(container.bundle.directory), container.id)
    assert engine(container.runtime, *argv, before=deaf).status == 7
    started(container)
    result = execute(container, "/bin/sh", "-c", "exit 8", before=deaf)
    assert result.status == 8, result
    assert signals(container.pid, "SigIgn") == set()


def test_a_hook_that_fails_is_heard_of(container: Container) -> None:
    container.config["hooks"] = {"prestart": [{"path": "/bin/false"}]}
    assert create(container, before=deaf).status == FAILED
    assert container.remains() == []


def test_the_runtimes_own_cgroup_is_not_the_containers(container: Container, token: str) -> None:
    """Podman puts the runtime into one of its own, with limits of its own."""
    path = f"/ocirt-test-{token}/engine"
    places = [cgroup.hierarchies()[name] / path.lstrip("/") for name in ("pids", "memory")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    enter = "".join(f"echo $$ >{place}/cgroup.procs; " for place in places)
    by = ("/bin/sh", "-c", f'{enter}exec "$@"', "sh")
    container.command("/bin/sleep", "1000")
    try:
        assert create(container, by=by).status == 0
        assert engine(container.runtime, "start", container.id, by=by).status == 0
        pid_file = container.runtime.root.parent / "pid"
        options = ("--detach", "--pid-file", str(pid_file), container.id)
        words = ("exec", *options, "/bin/sleep", "1000")
        assert engine(container.runtime, *words, by=by).status == 0
        assert sorted(container.processes()) == sorted([container.pid, int(pid_file.read_text())])
        for place in places:
            assert cgroup.processes(place) == []
    finally:
        cgroup.remove_tree(path)


def unusual() -> None:
    """No current directory, and a umask under which nothing could be used."""
    os.umask(0o777)
    place = f"/tmp/ocirt-gone-{os.getpid()}"
    os.mkdir(place, 0o700)
    os.chdir(place)
    os.rmdir(place)


def test_umask_and_directory_of_the_caller_dont_matter(container: Container) -> None:
    container.shell("mkdir /new; stat -c %a /dev/null /dev/shm /new >/modes; sleep 1000")
    assert create(container, before=unusual).status == 0
    assert engine(container.runtime, "start", container.id, before=unusual).status == 0
    assert execute(container, "/bin/true", before=unusual).status == 0
    assert engine(container.runtime, "list", before=unusual).status == 0
    modes = container.bundle.rootfs / "modes"
    while not modes.exists() or modes.read_text().count("\n") < 3:
        assert container.status == "running"
    assert modes.read_text().split() == ["666", "1777", "755"]


# 11: odd configurations that engines write


def test_odd_but_harmless_fields(container: Container) -> None:
    config = container.config
    config["process"]["oomScoreAdj"] = 0
    config["linux"]["resources"] = {
        "memory": {"kernel": 0},
        "blockIO": {"weight": 0},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    config["mounts"] += [
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["rprivate", "nosuid", "noexec", "nodev", "relatime", "ro"],
        },
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["", "nosuid"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "second", "options": ["noexec"]},
    ]
    shown = container.inside("echo hello >/dev/null && grep ' /tmp ' /proc/self/mounts")
    # Both are mounted, the second on top.
    assert [line.split()[0] for line in shown.splitlines()] == ["tmpfs", "second"]
