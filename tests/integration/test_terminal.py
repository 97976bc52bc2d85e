# SPDX-License-Identifier: GPL-3.0-or-later
"""Terminals: a person's, before whom `run` and `exec` are started, and a console socket."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import Container, proc
from tests.harness.container import PATIENCE_SECONDS
from tests.harness.terminal import ConsoleSocket, Screen, Session, get_size, set_size
from tests.integration.conftest import MakeContainer
from tests.integration.test_namespaces import ask_for

TTY_GROUP = 5


@pytest.fixture
def console(directory: Path) -> Iterator[ConsoleSocket]:
    socket = ConsoleSocket(directory / "console.sock")
    yield socket
    socket.close()


def line(container: Container, command: str, *args: str) -> list[str]:
    """The command line of somebody at a terminal."""
    runtime = container.runtime
    return [runtime.executable, "--root", str(runtime.root), command, *args]


def sit_down(container: Container, *args: str, size: tuple[int, int] = (24, 80)) -> Session:
    """`run` the container in a terminal."""
    container.bundle.save()
    bundle = ("--bundle", str(container.bundle.directory))
    return Session(line(container, "run", *bundle, *args, container.id), size)


def shell(container: Container) -> Container:
    """Ask for an interactive shell, with a prompt to wait for."""
    container.command("/bin/sh")
    container.bundle.set("/process/terminal", True)
    container.bundle.set("/process/env/-", "PS1=$ ")
    return container


def in_foreground(container: Container, name: str, besides: int = 0) -> bool:
    """Whether a program of the container's sleeps, and is who the terminal's signals are for."""
    for pid in container.processes():
        try:
            head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        state, _, group, _, _, foreground = rest.split()[:6]
        if head.endswith(f"({name}") and pid != besides:
            return state == "S" and group == foreground
    return False


def settings(fd: int) -> list[object]:
    return list(termios.tcgetattr(fd))


def until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


def test_a_shell(container: Container) -> None:
    session = sit_down(shell(container), size=(30, 100))
    session.wait_for("$ ")
    session.type("tty; stty size\n")
    session.wait_for("/dev/pts/0\r\n30 100\r\n")
    session.type("exit 3\n")
    session.rest()
    assert session.status() == 3
    session.close()


def test_job_control_and_keys(container: Container) -> None:
    """Ctrl-C and Ctrl-Z reach the program, not the runtime; jobs can be stopped and go on."""
    session = sit_down(shell(container))
    session.wait_for("$ ")
    session.type("sleep 1000\n")
    until(lambda: in_foreground(container, "sleep"), "sleep isn't there")
    session.type("\x1a")
    session.wait_for("Stopped")
    # At its prompt the shell has the keys as they come; before, they'd be lost in between.
    session.wait_for("$ ")
    session.type("fg\n")
    until(lambda: in_foreground(container, "sleep"), "sleep doesn't go on")
    session.type("\x03")
    session.wait_for("\n$ ")
    session.type("echo status $?\n")
    session.wait_for("status 130")
    session.wait_for("$ ")
    session.type("\x04")
    session.rest()
    assert session.status() == 0
    session.close()


def test_resize(container: Container) -> None:
    """The program gets SIGWINCH and the new size."""
    container.bundle.set("/process/terminal", True)
    container.shell("trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done")
    session = sit_down(container)
    session.wait_for("ready")
    set_size(session.master, 11, 22)
    session.wait_for("11 22")
    session.rest()
    assert session.status() == 0
    session.close()


@pytest.mark.peer_fails("runc", "1.1 erases bytes whatever the terminal does")
@pytest.mark.parametrize("wanted", ["iutf8", "-iutf8"])
def test_what_is_erased_is_what_the_terminal_erases(container: Container, wanted: str) -> None:
    """IUTF8 (termios(3)) is as the caller's terminal has it."""
    container.bundle.set("/process/terminal", True)
    container.shell("stty -a")
    container.bundle.save()
    words = line(container, "run", "--bundle", str(container.bundle.directory), container.id)
    session = Session(["/bin/sh", "-c", f'stty {wanted}; exec "$@"', "sh", *words])
    assert wanted in session.rest().split()
    assert session.status() == 0
    session.close()


@pytest.mark.parametrize("end", ["exit", "signal", "failure", "killed"])
def test_the_terminal_is_restored(container: Container, directory: Path, end: str) -> None:
    """Whatever ends it: the program, a signal to it or the runtime, one that can't be run."""
    shell(container)
    if end == "failure":
        container.command("/no/such")
    if end == "signal":
        container.shell("trap 'exit 5' HUP; echo '$ '; while :; do sleep 0.05; done")
    container.bundle.save()
    file = directory / "settings"
    words = line(container, "run", "--bundle", str(container.bundle.directory), container.id)
    # Before and after are seen by the shell around it, which shares the terminal.
    script = f'stty -g >{file}; "$@"; stty -g >>{file}; echo done'
    session = Session(["/bin/sh", "-c", script, "sh", *words])
    if end == "exit":
        session.wait_for("$ ")
        session.type("exit\n")
    elif end == "signal":
        session.wait_for("$ ")
        os.kill(child_of(session.pid), signal.SIGHUP)
    elif end == "killed":
        session.wait_for("$ ")
        container.kill("KILL")
    session.wait_for("done")
    session.status()
    session.close()
    before, after = file.read_text().splitlines()
    assert before == after


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def test_while_it_runs_the_terminal_is_raw(container: Container) -> None:
    session = sit_down(shell(container))
    session.wait_for("$ ")
    local = settings(session.master)[3]
    assert isinstance(local, int)
    assert not local & (termios.ECHO | termios.ICANON | termios.ISIG)
    session.type("exit\n")
    session.rest()
    session.status()
    session.close()


@pytest.mark.peer_fails("runc", "leaves it running")
def test_the_container_ends_with_its_run(container: Container) -> None:
    """Who kills a run in the foreground has killed what it ran."""
    container.bundle.save()
    words = line(container, "run", "--bundle", str(container.bundle.directory), container.id)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as run:
        until(lambda: container.runtime.call("state", container.id).status == 0, "no container")
        container.wait_for("running")
        run.kill()
    container.wait_for("stopped")


@pytest.mark.parametrize("user", [0, 1000])
def test_the_terminal_belongs_to_the_user(container: Container, user: int) -> None:
    container.bundle.set("/process/terminal", True)
    container.bundle.set("/process/user", {"uid": user, "gid": user})
    container.shell("stat -c '%u %g' $(tty); ls -l /dev/console >/dev/null; echo ok >/dev/tty")
    session = sit_down(container)
    shown = session.rest()
    assert session.status() == 0
    assert f"{user} " in shown and "ok" in shown
    session.close()


@pytest.mark.peer_fails("runc", "wants a terminal of its own")
def test_output_that_is_no_terminal(container: Container) -> None:
    """In a pipe line feeds stay as they were written, and the end of input is the program's."""
    container.bundle.set("/process/terminal", True)
    container.shell("stty -echo; cat; exit 4")
    container.bundle.save()
    words = line(container, "run", "--bundle", str(container.bundle.directory), container.id)
    ended = subprocess.run(
        words, input="one\ntwo\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 4, ended.stderr
    assert ended.stdout.endswith("one\ntwo\n")


def test_a_lot_of_output(container: Container) -> None:
    """Everything arrives, the last line too."""
    container.bundle.set("/process/terminal", True)
    container.shell("seq 1 50000")
    session = sit_down(container)
    shown = session.rest()
    assert session.status() == 0
    assert [int(n) for n in shown.split()] == list(range(1, 50001))
    session.close()


def test_console_socket(container: Container, console: ConsoleSocket) -> None:
    """The master comes over the socket when the container is created."""
    container.bundle.set("/process/consoleSize", {"height": 12, "width": 34})
    shell(container).create("--console-socket", str(console.path))
    words, master = console.descriptor()
    assert words == b"/dev/ptmx"
    found = os.fstat(master)
    assert stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(5, 2)
    assert get_size(master) == (12, 34)
    screen = Screen(master)
    container.start()
    screen.wait_for("$ ")
    screen.type("test /dev/console -ef /dev/pts/0 && echo 'a''like'; echo $(tty)\n")
    screen.wait_for("/dev/pts/0\r\n")
    links = {os.readlink(f"/proc/{container.pid}/fd/{fd}") for fd in (0, 1, 2)}
    assert links == {"/dev/pts/0"}
    assert len(os.listdir(f"/proc/{container.pid}/fd")) in (3, 4)  # the shell's own for /dev/tty
    screen.type("exit\n")
    container.wait_for("stopped")
    screen.close()


def test_the_console_is_the_terminal(container: Container, console: ConsoleSocket) -> None:
    container.bundle.set("/process/terminal", True)
    container.shell("echo hello >/dev/console; sleep 1000")
    container.create("--console-socket", str(console.path))
    screen = console.screen()
    container.start()
    screen.wait_for("hello")
    mounts = [line.split() for line in proc.mountinfo(container.pid)]
    assert [m[3] for m in mounts if m[4] == "/dev/console"] == ["/0"]
    screen.close()


def test_in_a_user_namespace(container: Container, console: ConsoleSocket) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    shell(container).create("--console-socket", str(console.path))
    screen = console.screen()
    container.start()
    screen.wait_for("$ ")
    screen.type("stat -c 'owner %u' $(tty); echo ok >/dev/console\n")
    screen.wait_for("owner 0\r\n")
    screen.wait_for("ok\r\n")
    screen.type("exit\n")
    container.wait_for("stopped")
    screen.close()


def test_refusals(container: Container, console: ConsoleSocket, directory: Path) -> None:
    container.bundle.set("/process/terminal", True)
    container.bundle.save()
    bundle = ("--bundle", str(container.bundle.directory))
    assert "cannot allocate tty" in container.refused("create", *bundle)
    container.refused("create", *bundle, "--console-socket", str(directory / "none"))
    (directory / "file").write_text("")
    container.refused("create", *bundle, "--console-socket", str(directory / "file"))
    container.bundle.set("/process/terminal", False)
    container.bundle.save()
    socket = ("--console-socket", str(console.path))
    assert "cannot use console socket" in container.refused("run", *bundle, *socket)
    container.bundle.set("/process/terminal", True)
    mounts = container.bundle.get("/mounts")
    container.bundle.set("/mounts", [m for m in mounts if m["type"] != "devpts"])
    container.bundle.save()
    container.refused("create", *bundle, *socket)


def test_a_console_that_leads_elsewhere(
    container: Container, console: ConsoleSocket, directory: Path
) -> None:
    """CVE-2026-88264: /dev/console of the image is a link to a file of the host."""
    outside = directory / "outside"
    container.bundle.set("/process/terminal", True)
    mounts = container.bundle.get("/mounts")
    kept = [m for m in mounts if m["destination"] not in ("/dev", "/dev/shm")]
    container.bundle.set("/mounts", kept)
    (container.bundle.rootfs / "dev").mkdir(exist_ok=True)
    (container.bundle.rootfs / "dev/pts").mkdir(exist_ok=True)
    (container.bundle.rootfs / "dev/console").symlink_to(outside)
    container.bundle.save()
    container.runtime.call(
        "create",
        "--bundle",
        str(container.bundle.directory),
        "--console-socket",
        str(console.path),
        container.id,
    )
    assert not outside.exists()


def test_a_multiplexer_that_is_something_else(
    container: Container, console: ConsoleSocket, directory: Path
) -> None:
    """CVE-2025-52565: what is at /dev/pts isn't the container's devpts."""
    container.bundle.set("/process/terminal", True)
    mounts = container.bundle.get("/mounts")
    fake = directory / "pts"
    fake.mkdir()
    os.mknod(fake / "ptmx", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for mount in mounts:
        if mount["destination"] == "/dev/pts":
            mount.update(type="bind", source=str(fake), options=["bind"])
    container.bundle.save()
    bundle = ("--bundle", str(container.bundle.directory))
    container.refused("create", *bundle, "--console-socket", str(console.path))


def started(container: Container) -> Container:
    container.create()
    container.start()
    return container


def test_exec_with_a_terminal(container: Container) -> None:
    started(container)
    words = line(container, "exec", "--tty", "--env=PS1=$ ", container.id, "/bin/sh")
    session = Session(words, size=(31, 41))
    session.wait_for("$ ")
    session.type("tty; stty size; sleep 1000\n")
    session.wait_for("/dev/pts/0\r\n31 41\r\n")
    until(lambda: in_foreground(container, "sleep", besides=container.pid), "sleep isn't there")
    session.type("\x03")
    session.wait_for("$ ")
    set_size(session.master, 10, 20)
    session.type("stty size; exit 9\n")
    session.wait_for("10 20\r\n")
    session.rest()
    assert session.status() == 9
    session.close()


@pytest.mark.parametrize("end", ["exit", "signal", "failure", "killed", "with the container"])
def test_exec_restores_the_terminal(container: Container, end: str) -> None:
    started(container)
    program = "/no/such" if end == "failure" else "/bin/sh"
    words = line(container, "exec", "--tty", "--env=PS1=$ ", container.id, program)
    script = 'before=$(stty -g); "$@"; echo status $?; test "$before" = "$(stty -g)" && echo same'
    session = Session(["/bin/sh", "-c", script, "sh", *words])
    if end != "failure":
        session.wait_for("$ ")
        session.type({"exit": "exit 6\n", "signal": "kill -TERM $$; kill -HUP $$\n"}.get(end, ""))
    if end == "killed":
        [pid] = set(container.processes()) - {container.pid}
        os.kill(pid, signal.SIGKILL)
    elif end == "with the container":
        container.kill("KILL")
    session.wait_for("status ")
    expected = {"exit": 6, "signal": 128 + signal.SIGHUP, "failure": 255}
    assert session.rest().split() == [str(expected.get(end, 128 + signal.SIGKILL)), "same"]
    session.close()


@pytest.mark.peer_fails("runc", "1.1 may stay when its terminal has gone")
def test_a_window_that_is_closed(container: Container) -> None:
    """The shell inside hears of it, as it would without a runtime."""
    session = sit_down(shell(container))
    session.wait_for("$ ")
    session.close()
    session.status()
    assert container.remains() == []


def test_exec_with_a_console_socket(
    container: Container, console: ConsoleSocket, directory: Path
) -> None:
    """As conmon and containerd do it: the process from a file, detached."""
    started(container)
    file = directory / "process.json"
    process = '{"terminal": true, "consoleSize": {"height": 7, "width": 8}, "cwd": "/",'
    process += '"args": ["/bin/sh", "-c", "stty size; tty; sleep 1000"], "user": {"uid": 1000,'
    file.write_text(process + '"gid": 1000}, "env": ["PATH=/bin"]}')
    options = ["--process", str(file), "--console-socket", str(console.path), "--detach"]
    pid_file = directory / "pid"
    container.runtime.call("exec", *options, "--pid-file", str(pid_file), container.id).checked()
    screen = console.screen()
    screen.wait_for("7 8\r\n/dev/pts/0\r\n")
    pid = int(pid_file.read_text())
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert links == {"/dev/pts/0"}
    assert os.stat(f"/proc/{pid}/fd/0").st_uid == 1000
    # Field 5 of stat is the session, 7 the terminal: 136:0.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[3]) and int(fields[4]) == os.makedev(136, 0)
    screen.close()


def test_exec_refusals(container: Container, console: ConsoleSocket) -> None:
    started(container)
    runtime = container.runtime
    words = runtime.refused("exec", "--tty", "--detach", container.id, "/bin/sh")
    assert "cannot allocate tty" in words
    socket = ("--console-socket", str(console.path))
    words = runtime.refused("exec", *socket, container.id, "/bin/true")
    assert "cannot use console socket" in words


def test_exec_in_a_user_namespace(container: Container) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    started(container)
    words = line(container, "exec", "--tty", "--user=5:6", container.id, "/bin/sh", "-c")
    session = Session([*words, "stat -c 'owner %u' $(tty); echo ok >/dev/tty"])
    session.wait_for("owner 5")
    session.wait_for("ok")
    session.rest()
    assert session.status() == 0
    session.close()


def test_two_terminals_in_one_container(make_container: MakeContainer) -> None:
    container = started(make_container())
    words = line(container, "exec", "-t", container.id, "/bin/sh", "-c")
    first = Session([*words, "tty; read x"])
    first.wait_for("/dev/pts/0")
    second = Session([*words, "tty"])
    second.wait_for("/dev/pts/1")
    second.rest()
    first.type("\n")
    first.rest()
    assert (first.status(), second.status()) == (0, 0)
    first.close()
    second.close()
